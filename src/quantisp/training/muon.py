"""Muon, all matrices of one shape at once: a few large products instead of many small ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from quantisp.orthogonal import orthogonal

__all__ = ["StackedMuon"]


class StackedMuon(torch.optim.Muon):
    """torch's Muon with ``match_rms_adamw``, but for the order of sums.

    An accelerator takes longer to be told of a hundred small matrices' thousands of products than
    to compute them.

    Source: :class:`torch.optim.Muon`, whose settings and state it has.
    """

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every matrix along its gradient; those without one stay."""
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in of_shape.items():
                self._move(matrices, group["lr"], 0.2 * math.sqrt(max(shape)), group)

    def _move(
        self, matrices: list[Tensor], rate: float | Tensor, length: float, group: dict[str, Any]
    ) -> None:
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        means: list[Tensor] = [
            self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
            for matrix in matrices
        ]
        for mean, gradient in zip(means, gradients, strict=True):
            mean.lerp_(gradient, 1.0 - group["momentum"])
        ahead = torch.stack(gradients).lerp(torch.stack(means), group["momentum"])
        for matrix, direction in zip(matrices, orthogonal(ahead.bfloat16()).float(), strict=True):
            matrix.mul_(1.0 - rate * group["weight_decay"]).sub_(direction * (rate * length))
