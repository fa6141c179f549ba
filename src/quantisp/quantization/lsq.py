"""LSQ: weights and the scales of their codes, learned together.

With v the weight, s the scale, and Q_N, Q_P the sizes of the least and the greatest code, a forward
pass uses (eq. 1 and 2)::

    v_hat = s * round(clip(v / s, -Q_N, Q_P))

and the gradients that come back from it are, with the rounding passed over (eq. 3 and 5)::

    d v_hat / d s = round(v / s) - v / s   where -Q_N < v / s < Q_P
                    -Q_N                   where v / s <= -Q_N
                    Q_P                    where v / s >= Q_P
    d v_hat / d v = 1                      where -Q_N < v / s < Q_P, else 0

A scale's gradient is multiplied by 1 / sqrt(N Q_P), where N counts its weights (section 2.2).

Source: Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned step size quantization", ICLR 2020.
Ours: a scale begins where a rounding method left it, and what is learned is its ratio to that, so
that one learning rate serves layers whose scales differ by orders of magnitude. The factor acts on
the common norm that gradients are clipped to; AdamW's step does not depend on it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight, dequantize_tensor, quantize_tensor
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding
from quantisp.quantization.weight_quantizer import LEAST_RATIO, WeightQuantizer

__all__ = ["LearnedScale", "fake_quantize"]


class LearnedScale(WeightQuantizer):
    """A weight's quantizer whose scales are learned.

    Args:
        scale: where it begins: 0-d, or 1-d along ``axis``; above zero.
        int_format, rounding, axis: as of :class:`WeightQuantizer`.
    """

    scale_parameters = ("ratio",)

    def __init__(
        self,
        scale: Float[Tensor, "*channels"],
        *,
        int_format: IntFormat,
        rounding: Rounding,
        axis: int | None,
    ) -> None:
        super().__init__(int_format=int_format, rounding=rounding, axis=axis)
        self.register_buffer("start", scale.detach().clone())
        self.start: Tensor
        self.ratio = nn.Parameter(torch.ones_like(scale))

    def scale(self) -> Float[Tensor, "*channels"]:
        """The scale as it is now; above zero."""
        return self.start * self.ratio.clamp(min=LEAST_RATIO)

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes times scale."""
        return fake_quantize(weight, self.scale(), self.int_format, self.rounding, self.axis)

    @torch.no_grad()
    def quantized(self, weight: Float[Tensor, "*shape"]) -> QuantizedWeight:
        """The codes and the scale behind ``forward``."""
        scale = self.scale()
        codes = quantize_tensor(weight, scale, self.int_format, self.rounding, self.axis)
        return QuantizedWeight(codes=codes.cpu(), scale=scale.cpu(), axis=self.axis)


def fake_quantize(
    weight: Float[Tensor, "*shape"],
    scale: Float[Tensor, "*channels"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
) -> Float[Tensor, "*shape"]:
    """Codes times scale, with the gradients of LSQ for ``weight`` and ``scale``.

    Args:
        weight: float32.
        scale: above zero; 0-d, or 1-d along ``axis``.
        int_format: the codes that there are.
        rounding: what becomes of a value in the middle between two codes.
        axis: along which the scale varies, or None for one scale.
    """
    return _FakeQuantize.apply(weight, scale, int_format, rounding, axis)  # pyright: ignore[reportReturnType]


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        weight: Tensor,
        scale: Tensor,
        int_format: IntFormat,
        rounding: Rounding,
        axis: int | None,
    ) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.settings = int_format, rounding, axis
        codes = quantize_tensor(weight, scale, int_format, rounding, axis)
        return dequantize_tensor(codes, scale, axis)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None, None]:
        weight, scale = ctx.saved_tensors
        int_format, rounding, axis = ctx.settings
        spread = scale
        if axis is not None:
            spread = scale.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
        quotient = weight / spread
        inside = (quotient > int_format.qmin) & (quotient < int_format.qmax)
        codes = quantize_tensor(weight, scale, int_format, rounding, axis)
        slope = gradient * (codes - torch.where(inside, quotient, 0.0))
        others = [dim for dim in range(weight.ndim) if dim != axis]
        factor = 1.0 / math.sqrt(weight.numel() // max(scale.numel(), 1) * int_format.qmax)
        return gradient * inside, slope.sum(dim=others) * factor, None, None, None
