"""What a quantized weight really is: counted, whatever a toolkit says of it."""

from __future__ import annotations

import torch
from torch import Tensor

# In steps. Float32 holds a code times a scale far more exactly than this.
TOLERANCE = 1e-3


def distinct_levels(weight: Tensor, axis: int = 0) -> int:
    """The largest number of different values in one output channel.

    Args:
        weight: of a layer, float32.
        axis: of its output channels.
    """
    rows = weight.detach().transpose(0, axis).flatten(1)
    return max(int(torch.unique(row).numel()) for row in rows)


def even_levels(weight: Tensor, most: int, axis: int = 0) -> int:
    """The levels of the coarsest even grid on which an output channel lies; the worst channel's.

    A channel of codes times one scale lies on a grid of as many levels as codes at the most.
    Different channels may have different scales, and a grid need not contain zero.

    Args:
        weight, axis: as for :func:`distinct_levels`.
        most: levels that are tried; a channel that lies on no such grid counts as ``most + 1``.
    """
    rows = weight.detach().double().transpose(0, axis).flatten(1)
    return max(_levels_of(torch.unique(row), most) for row in rows)


def _levels_of(values: Tensor, most: int) -> int:
    if len(values) <= 2 or len(values) > most:
        return min(len(values), most + 1)
    places = (values - values[0]) / (values[-1] - values[0])
    intervals = torch.arange(len(values) - 1, most, dtype=places.dtype)
    steps = places[None, :] * intervals[:, None]
    fits = ((steps - steps.round()).abs() <= TOLERANCE).all(dim=1)
    found = torch.nonzero(fits)
    return int(intervals[found[0, 0]]) + 1 if len(found) else most + 1
