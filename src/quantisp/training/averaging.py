"""The running mean of the weights, which is what is validated and kept."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["follow"]


@torch.no_grad()
def follow(averaged: nn.Module, model: nn.Module, steps: int, decay: float) -> None:
    """Let a mean take in the weights after a step; its buffers are those of the model.

    Args:
        averaged: the mean, a copy of ``model`` once.
        model: as it is now.
        steps: since then.
        decay: how much of the mean stays, after many of them.
    """
    # It follows fast in the beginning, when the first weights are of no worth.
    decay = min(decay, (1 + steps) / (10 + steps))
    get_ema_multi_avg_fn(decay)(list(averaged.parameters()), list(model.parameters()), steps)
    for mean, value in zip(averaged.buffers(), model.buffers(), strict=True):
        mean.copy_(value)
