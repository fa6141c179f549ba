"""Real numbers to integer codes and back: ``code = clamp(round(value / scale), qmin, qmax)``.

The division is a division: multiplying by the reciprocal of the scale rounds twice, which changes
1 code in 8000 at 16 bits (normally distributed weights).

All of it runs in the weights' own float32, as in Brevitas. The quotient is then off by at most
2^-10 of a code at 16 bits, and 2^-16 at 10, so a weight that lies that close to the middle between
two codes may get the other one: against float64, 1 code in 4500 at 16 bits, 1 in 300000 at 10 and
1 in a million at 8 differ, by one. The largest magnitude always gets ±qmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.errors import ModelError, SettingError
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding, round_tensor

__all__ = [
    "QuantizedWeight",
    "dequantize_tensor",
    "quantize_tensor",
    "spread_scale",
    "weight_scale",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedWeight:
    """A weight as a method leaves it.

    Args:
        codes: integers, in the weight's shape.
        scale: one number (0-d), or one for each index along ``axis`` (1-d).
        axis: of the output channels, or None where one scale serves the whole tensor.
        groups: in how many blocks of inputs, along axis 0, the output channels repeat along
            ``axis``; above 1 for a transposed convolution of groups alone.
    """

    codes: Int[Tensor, "*shape"]
    scale: Float[Tensor, "*channels"]
    axis: int | None
    groups: int = 1

    def dequantize(self) -> Float[Tensor, "*shape"]:
        """The weight that the network uses."""
        return dequantize_tensor(self.codes, self.scale, self.axis, self.groups)


def quantize_tensor(
    values: Float[Tensor, "*shape"],
    scale: Float[Tensor, "*channels"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None = None,
) -> Int[Tensor, "*shape"]:
    """The codes of ``values``, as int32.

    Args:
        values: finite; what lies outside the format's range gets its nearest end.
        scale: positive; 0-d, or 1-d along ``axis``.
        int_format: the codes that there are.
        rounding: what becomes of a value in the middle between two codes.
        axis: along which the scale varies.

    Raises:
        SettingError: the scale does not fit ``axis``, or there is no such rounding.
    """
    quotients = round_tensor(values / spread_scale(scale, values, axis), rounding)
    return quotients.clamp(int_format.qmin, int_format.qmax).to(torch.int32)


def dequantize_tensor(
    codes: Int[Tensor, "*shape"],
    scale: Float[Tensor, "*channels"],
    axis: int | None = None,
    groups: int = 1,
) -> Float[Tensor, "*shape"]:
    """The values that ``codes`` stand for, in the scale's type: one rounded product each.

    Raises:
        SettingError: the scale does not fit ``axis``.
    """
    return codes.to(scale.dtype) * spread_scale(scale, codes, axis, groups)


def weight_scale(
    weight: Float[Tensor, "*shape"], int_format: IntFormat, axis: int | None = None
) -> Float[Tensor, "*channels"]:
    """The absolute maximum over qmax: of the tensor (0-d), or of each slice along ``axis`` (1-d).

    Where all weights are 0 any scale gives codes of 0: it is 1, so that a division by it is safe
    and the codes come back as exact zeros. No scale is subnormal: weights too small for
    that (below 1.2e-38 qmax) get codes smaller than qmax.

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise ModelError(
            "expected finite weights, found NaN or infinity: train the network again, "
            "or load other weights"
        )
    slices = weight.reshape(1, -1) if axis is None else weight.transpose(0, axis).flatten(1)
    largest = slices.abs().amax(dim=1)
    scale = (largest / int_format.qmax).clamp(min=torch.finfo(weight.dtype).tiny)
    scale = torch.where(largest > 0, scale, torch.ones_like(scale))
    return scale.squeeze(0) if axis is None else scale


def spread_scale(scale: Tensor, values: Tensor, axis: int | None, groups: int = 1) -> Tensor:
    """The scale in a shape that broadcasts along ``axis``, and along axis 0 by ``groups``."""
    expected = () if axis is None else (groups * values.shape[axis],)
    if tuple(scale.shape) != expected:
        raise SettingError(
            f"expected a scale of shape {expected} for axis {axis}, found {tuple(scale.shape)}: "
            "pass one scale without an axis, or one for each channel with it"
        )
    if axis is None:
        return scale
    if groups > 1:
        blocks = scale.reshape(groups, -1).repeat_interleave(values.shape[0] // groups, dim=0)
        kept = (0, axis)
        return blocks.reshape([n if d in kept else 1 for d, n in enumerate(values.shape)])
    return scale.reshape([-1 if dim == axis else 1 for dim in range(values.ndim)])
