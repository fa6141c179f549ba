"""The integers in which a stored tensor is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.activations.settings import TieRule

__all__ = ["TensorQuantizer", "code_range", "round_in_place", "round_input"]


def code_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """The least and the greatest code of a stored tensor."""
    if signed:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


@dataclass(frozen=True, kw_only=True)
class TensorQuantizer:
    """One scale for a whole tensor, zero_point 0.

    >>> input_grid = TensorQuantizer(bits=10, signed=False, scale=1 / 1023)
    >>> input_grid.qmin, input_grid.qmax
    (0, 1023)

    Args:
        bits: 4 to 16.
        signed: False where the tensor is provably never negative.
        scale: what a step of one stands for.
    """

    bits: int
    signed: bool
    scale: float

    @property
    def qmin(self) -> int:
        """The least code."""
        return code_range(self.bits, signed=self.signed)[0]

    @property
    def qmax(self) -> int:
        """The greatest code."""
        return code_range(self.bits, signed=self.signed)[1]

    def encode(self, x: Float[Tensor, "*shape"], tie_rule: TieRule) -> Float[Tensor, "*shape"]:
        """The codes, as floats."""
        return round_in_place(x / self.scale, tie_rule).clamp_(self.qmin, self.qmax)


def round_in_place(x: Tensor, tie_rule: TieRule) -> Tensor:
    """To whole numbers, in the same memory."""
    return x.add_(0.5).floor_() if tie_rule == "half_up" else torch.round_(x)


def round_input(x: Float[Tensor, "*shape"], bits: int) -> Float[Tensor, "*shape"]:
    """A network's input on its grid: [0, 1] in 2^bits - 1 steps, half up, saturating.

    >>> round_input(torch.tensor([-0.1, 0.5, 0.6]), 2).tolist()
    [0.0, 0.6666666865348816, 0.6666666865348816]
    """
    steps = float((1 << bits) - 1)
    return round_in_place(x * steps, "half_up").clamp_(0.0, steps).div_(steps)
