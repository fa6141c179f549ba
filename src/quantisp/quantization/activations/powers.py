"""Powers of two beside a scale."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SAME", "nearest_powers"]

# Logarithms that differ by less are those of one number.
SAME = 1e-9


def nearest_powers(
    scale: Float[Tensor, "*channels"], unit: float
) -> tuple[Float[Tensor, "*channels"], Float[Tensor, "*channels"]]:
    """The powers of two times a unit below and above a scale; twice the same if it is one."""
    exponent = torch.log2(scale.double() / unit)
    near = exponent.round()
    exponent = torch.where((exponent - near).abs() < SAME, near, exponent)
    below, above = exponent.floor(), exponent.ceil()
    return torch.exp2(below) * unit, torch.exp2(above) * unit
