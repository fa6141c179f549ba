"""Bit-split and stitching: the bits of the codes are optimised one at a time.

Source: Wang, Chen, He, Cheng, "Towards accurate post-training network quantization via bit-split
and stitching", ICML 2020. A code of M bits is split into M - 1 ternary digits, each with a sign of
its own, q = sum_m 2^m B_m with B_m in {-1, 0, 1}. Digits and scale alpha are optimised in turn for
the layer's output on calibration data, |y - alpha q x|^2:

* given the digits, alpha is the least squares solution;
* given alpha and all digits but B_m, the elements of each B_m are optimised one after the other,
  from the most significant digit down.

Then the digits are stitched together to integers again.

It begins with the same without data, which reconstructs the weights, |w - alpha q|^2, and is this
one where x x^T is a multiple of the identity. Then the weights are independent, and given alpha the
nearest code is the best there is. Each of its sweeps begins with digits of 0, which leads to the
nearest code. Begun with the digits of the last codes it need not, for digits one at a time do not
carry (no single one leads from 011 to 100). That is also why ``quantease``, which moves whole
codes, ends nearer to the output. As there, what is approached is the weight that fits the float
network's outputs best on the quantized network's inputs: y is of the one, x of the other.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.gptq import Gram, Matrix, Scales, as_weight
from quantisp.quantization.methods.mse import as_rows, fitted_scale, of_shape, where_better
from quantisp.quantization.methods.quantease import in_turn, sweep, target_weight
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import Rounding, round_tensor
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["improve_digits", "round_by_bit_split", "split_bits", "stitch", "sweep_digits"]

# Of all digits, on the layer's output.
SWEEPS = 6
# Of all digits, on the weights alone.
ROUNDS = 50
# -1, 0 and 1.
TERNARY = IntFormat(bits=2)


def round_by_bit_split(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, None]:
    """Quantize one weight; the arguments are those of ``CalibratedMethod``. The bias stays."""
    target, shared = target_weight(layer, weight, statistics), axis is None
    begin = split_bits(target.flatten(0, 1).float(), int_format, rounding, None if shared else 0)
    digits = sweep_digits(begin.codes.double(), int_format.bits - 1, rounding)
    digits = digits.double().reshape(-1, *target.shape)
    scale = begin.scale.double().expand(target.shape[0] * target.shape[1]).reshape(target.shape[:2])
    digits, scale = improve_digits(target, statistics.gram, digits, scale, rounding, shared=shared)
    return as_weight(layer, weight, stitch(digits), scale, axis), None


def improve_digits(
    target: Matrix,
    gram: Gram,
    digits: Float[Tensor, "digits groups rows k"],
    scale: Scales,
    rounding: Rounding,
    *,
    shared: bool,
) -> tuple[Float[Tensor, "digits groups rows k"], Scales]:
    """Digits and scales after sweeps over all digits, each moved to where the error is least.

    Args:
        target: the matrices to approach.
        gram: second moments of the inputs.
        digits, scale: to begin with; no row ends with a larger error than theirs.
        rounding: what becomes of a value in the middle between two digits.
        shared: one scale for everything, instead of one a row.
    """

    def swept(last: Tensor, scale: Scales) -> Tensor:
        found, codes = last.clone(), stitch(last)
        for place in reversed(range(len(found))):
            others = codes - found[place] * 2.0**place
            left, unit = target - others * scale[:, :, None], scale * 2.0**place
            found[place] = sweep(left, gram, found[place], unit, TERNARY, rounding)
            codes = others + found[place] * 2.0**place
        return found

    return in_turn(target, gram, digits, scale, swept, stitch, shared=shared, sweeps=SWEEPS)


def split_bits(
    weight: Float[Tensor, "*shape"], int_format: IntFormat, rounding: Rounding, axis: int | None
) -> QuantizedWeight:
    """The form without data of one weight; the arguments are those of ``LayerMethod``.

    No slice is farther from its weights than ``round_to_nearest`` leaves it. The digits have no
    code -qmax - 1, so that the full range is used as the narrow one.

    >>> import torch
    >>> weight = torch.tensor([[0.6, -0.5, 0.4, 0.2, -0.2, 0.1, -0.3, 0.6, 0.5, 0.8]])
    >>> found = split_bits(weight, IntFormat(bits=3), "half_even", 0)
    >>> found.codes.tolist(), round(found.scale.item(), 4)
    ([[2, -2, 2, 1, -1, 0, -1, 2, 2, 3]], 0.2594)

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    start = round_to_nearest(weight, int_format, rounding, axis)
    rows, codes, scale = as_rows(weight, axis), as_rows(start.codes, axis), start.scale.reshape(-1)
    new_codes, new_scale = codes, scale
    for _ in range(ROUNDS):
        refitted = fitted_scale(rows, new_codes, new_scale)
        codes, scale = where_better(rows, (new_codes, refitted), (codes, scale))
        quotients = rows.double() / refitted.double()[:, None]
        digits = sweep_digits(quotients, int_format.bits - 1, rounding)
        last_codes, new_codes, new_scale = new_codes, stitch(digits), refitted
        codes, scale = where_better(rows, (new_codes, new_scale), (codes, scale))
        if torch.equal(new_codes, last_codes):
            break
    return QuantizedWeight(
        codes=of_shape(codes, weight, axis), scale=scale.reshape(start.scale.shape), axis=axis
    )


def sweep_digits(
    quotients: Float[Tensor, "rows k"], count: int, rounding: Rounding
) -> Int[Tensor, "digits rows k"]:
    """Ternary digits of the codes nearest to w / alpha; the least significant comes first.

    >>> import torch
    >>> sweep_digits(torch.tensor([[5.2, 3.0]]), 3, "half_even").tolist()
    [[[-1, -1]], [[1, 0]], [[1, 1]]]
    """
    digits = torch.zeros(count, *quotients.shape, dtype=torch.int32)
    left = quotients.clone()
    for place in reversed(range(count)):
        digits[place] = round_tensor(left / 2.0**place, rounding).clamp(-1, 1)
        left -= digits[place] * 2.0**place
    return digits


def stitch(digits: Tensor) -> Tensor:
    """The integers of which these are the digits along axis 0, in their type.

    >>> import torch
    >>> stitch(torch.tensor([[[-1, -1]], [[1, 0]], [[1, 1]]])).tolist()
    [[5, 3]]
    """
    places = 2 ** torch.arange(len(digits)).reshape(-1, *(1,) * (digits.ndim - 1))
    return (digits * places).sum(dim=0).to(digits.dtype)
