"""Rounding to the nearest integer, twice: a scalar specification, and its twin on tensors.

The rules differ only where the nearest integer is not unique:

=============  ====  ====  ===  ===
rule           -1.5  -0.5  0.5  1.5
=============  ====  ====  ===  ===
``half_even``  -2    0     0    2
``half_up``    -1    0     1    2
``half_away``  -2    -1    1    2
=============  ====  ====  ===  ===

PyTorch and IEEE 754 round half to even; an adder before a shift, as in hardware, rounds half up.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.errors import SettingError

__all__ = ["ROUNDINGS", "Rounding", "round_scalar", "round_tensor"]

Rounding = Literal["half_even", "half_up", "half_away"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


def round_scalar(x: float | Fraction, rounding: Rounding) -> int:
    """The specification, in exact arithmetic.

    >>> [round_scalar(Fraction(5, 2), rounding) for rounding in ROUNDINGS]
    [2, 3, 3]

    Raises:
        SettingError: no such rule.
    """
    below = math.floor(x)
    rest = Fraction(x) - below
    if rest < Fraction(1, 2):
        return below
    if rest > Fraction(1, 2):
        return below + 1
    match rounding:
        case "half_even":
            return below + below % 2
        case "half_up":
            return below + 1
        case "half_away":
            return below + 1 if x > 0 else below
        case _:
            raise _no_such(rounding)


def round_tensor(x: Float[Tensor, "*shape"], rounding: Rounding) -> Float[Tensor, "*shape"]:
    """As :func:`round_scalar`, for each element; the integers come back as floats.

    Raises:
        SettingError: no such rule.
    """
    match rounding:
        case "half_even":
            return torch.round(x)
        case "half_up":
            return _half_up(x)
        case "half_away":
            return torch.sign(x) * _half_up(x.abs())
        case _:
            raise _no_such(rounding)


def _half_up(x: Tensor) -> Tensor:
    # Not floor(x + 0.5): that sum is itself rounded, and takes 0.49999997 to 1.
    below = torch.floor(x)
    return below + (x - below >= 0.5)


def _no_such(rounding: str) -> SettingError:
    return SettingError(
        f"expected a rounding among {', '.join(ROUNDINGS)}, found {rounding!r}: choose one of them"
    )
