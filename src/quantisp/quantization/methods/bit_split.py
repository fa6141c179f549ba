"""Bit-split and stitching: the bits of the codes are optimised one at a time.

Source: Wang, Chen, He, Cheng, "Towards accurate post-training network quantization via bit-split
and stitching", ICML 2020. A code of M bits is split into M - 1 ternary digits, each with a sign of
its own, q = sum_m 2^m B_m with B_m in {-1, 0, 1}. Digits and scale alpha are optimised in turn:

* given the digits, alpha = <w, q> / <q, q>;
* given alpha and all digits but B_m, each B_m is the ternary value nearest to
  (w / alpha - sum_(l != m) 2^l B_l) / 2^m, from the most significant digit down.

Then the digits are stitched together to integers again.

This is the paper's form without data, which reconstructs the weights, |w - alpha q|^2. Its main
form reconstructs a layer's output on calibration data, |(w - alpha q) X|^2, and is this one where
X X^T is a multiple of the identity. Without data the weights are independent, and given alpha the
nearest code is the best there is. The authors' code begins with rounding and scale in turn until
neither changes, which leaves the digits nothing to improve. Here the digits do that rounding: each
sweep begins with digits of 0, which leads to the nearest code. Begun with the digits of the last
codes it need not, for digits one at a time do not carry (no single one leads from 011 to 100), and
most of the gain is lost.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.mse import as_rows, fitted_scale, of_shape, where_better
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import Rounding, round_tensor

__all__ = ["split_bits", "stitch", "sweep_digits"]

ROUNDS = 50


def split_bits(
    weight: Float[Tensor, "*shape"], int_format: IntFormat, rounding: Rounding, axis: int | None
) -> QuantizedWeight:
    """Quantize one weight; the arguments are those of ``LayerMethod``.

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


def stitch(digits: Int[Tensor, "digits rows k"]) -> Int[Tensor, "rows k"]:
    """The integers of which these are the digits.

    >>> import torch
    >>> stitch(torch.tensor([[[-1, -1]], [[1, 0]], [[1, 1]]])).tolist()
    [[5, 3]]
    """
    places = torch.arange(len(digits)).reshape(-1, 1, 1)
    return (digits << places).sum(dim=0).to(torch.int32)
