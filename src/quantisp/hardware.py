"""What one multiply-accumulate (MAC) costs in silicon: estimates from a published table.

Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm at
0.9 V:

=========  ====================  =====================
operation  energy, pJ            area, square µm
=========  ====================  =====================
add        int8 0.03, int32 0.1  int8 36, int32 137
add        fp16 0.4, fp32 0.9    fp16 1360, fp32 4184
multiply   int8 0.2, int32 3.1   int8 282, int32 3495
multiply   fp16 1.1, fp32 3.7    fp16 1640, fp32 7700
=========  ====================  =====================

All else is an estimate by these rules:

* A multiplier of integers grows with the product of its operands' widths, by the power of that
  product which passes through both published points (0.99 for energy, 0.91 for area); one of floats
  in the same way with the product of the significands (hidden bit included: 11 bits in fp16, 24 in
  fp32).
* An adder of integers is a straight line through both points over its width, which is that of the
  sum: W + A + log2 of the number of products, rounded up. One of floats follows the power of its
  significand.
* Where an operand is float32, both are: narrow weights then save memory, but no arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["MAC_EXAMPLES", "MacCost", "float_mac_cost", "mac_cost"]

# Operands' bits, or bits of the significand, then picojoules and square micrometres.
Points = tuple[tuple[int, float, float], tuple[int, float, float]]
INT_ADD: Points = ((8, 0.03, 36.0), (32, 0.1, 137.0))
INT_MULTIPLY: Points = ((8, 0.2, 282.0), (32, 3.1, 3495.0))
FLOAT_ADD: Points = ((11, 0.4, 1360.0), (24, 0.9, 4184.0))
FLOAT_MULTIPLY: Points = ((11, 1.1, 1640.0), (24, 3.7, 7700.0))
FLOAT32_SIGNIFICAND = 24


@dataclass(frozen=True, kw_only=True)
class MacCost:
    """One multiply-accumulate unit in 45 nm: an estimate."""

    energy_pj: float
    area_um2: float


def mac_cost(weight_bits: int | None, activation_bits: int | None, products: int = 1) -> MacCost:
    """The unit that multiplies a weight and an activation, and adds to a sum.

    >>> round(mac_cost(8, 8, 576).energy_pj, 3), round(mac_cost(4, None).energy_pj, 3)
    (0.283, 4.6)

    Args:
        weight_bits, activation_bits: integers; None is float32.
        products: in one sum.
    """
    if weight_bits is None or activation_bits is None:
        return float_mac_cost(FLOAT32_SIGNIFICAND, FLOAT32_SIGNIFICAND)
    sum_bits = weight_bits + activation_bits + math.ceil(math.log2(max(products, 1)))
    product = weight_bits * activation_bits
    energy, area = (
        _power(INT_MULTIPLY, product, column) + _line(INT_ADD, sum_bits, column)
        for column in (1, 2)
    )
    return MacCost(energy_pj=energy, area_um2=area)


def float_mac_cost(significand_bits: int, sum_significand_bits: int) -> MacCost:
    """The same for floats, by the bits of their significands, the hidden one included."""
    energy, area = (
        _power(FLOAT_MULTIPLY, significand_bits**2, column)
        + _power(FLOAT_ADD, sum_significand_bits**2, column)
        for column in (1, 2)
    )
    return MacCost(energy_pj=energy, area_um2=area)


def _power(points: Points, product: int, column: int) -> float:
    (low, *_), (high, *_) = points
    first, last = points[0][column], points[1][column]
    if product == high**2:
        return last
    exponent = math.log(last / first) / math.log(high**2 / low**2)
    return first * (product / low**2) ** exponent


def _line(points: Points, bits: int, column: int) -> float:
    (low, *_), (high, *_) = points
    first, last = points[0][column], points[1][column]
    return first + (last - first) * (bits - low) / (high - low)


# What an architect compares, with the sums of a 3x3 convolution of 64 channels.
PRODUCTS = 576
MAC_EXAMPLES: dict[str, MacCost] = {
    **{
        f"int{weight} x int{activation}": mac_cost(weight, activation, PRODUCTS)
        for weight, activation in (
            (4, 4), (4, 8), (6, 8), (8, 8), (8, 10), (8, 12), (10, 10), (12, 12), (16, 16),
        )
    },
    "fp8-e5m2 x fp8-e5m2, sums in fp16": float_mac_cost(3, 11),
    "fp8-e4m3 x fp8-e4m3, sums in fp16": float_mac_cost(4, 11),
    "bfloat16 x bfloat16, sums in float32": float_mac_cost(8, 24),
    "float16 x float16, sums in float16": float_mac_cost(11, 11),
    "float16 x float16, sums in float32": float_mac_cost(11, 24),
    "float32 x float32": float_mac_cost(24, 24),
}  # fmt: skip
