"""Mosaics beyond their borders: mirrored, with every sample under its own filter."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa.patterns import CFAPattern

__all__ = ["alignment", "extend_in_phase", "mirror_in_phase"]


def extend_in_phase(
    mosaic: Float[Tensor, "n c h w"],
    *,
    before: tuple[int, int],
    after: tuple[int, int],
    period: tuple[int, int],
) -> Float[Tensor, "n c h2 w2"]:
    """Lengthen a mosaic on all sides, by mirroring at its outermost samples as far as they fit.

    A new pixel takes the sample of its own phase that is nearest to its mirror image: for a 2x2
    tile the mirror image itself.

    Args:
        mosaic: at least one period high and wide.
        before, after: rows and columns to add above and left, and below and right.
        period: rows and columns after which the CFA repeats.
    """
    height, width = mosaic.shape[2:]
    rows = [mirror_in_phase(p, height, period[0]) for p in range(-before[0], height + after[0])]
    columns = [mirror_in_phase(p, width, period[1]) for p in range(-before[1], width + after[1])]
    if len(rows) > height:
        mosaic = mosaic[:, :, torch.tensor(rows, device=mosaic.device)]
    if len(columns) > width:
        mosaic = mosaic[:, :, :, torch.tensor(columns, device=mosaic.device)]
    return mosaic


def mirror_in_phase(position: int, size: int, period: int) -> int:
    """The pixel of ``position``'s phase, within ``size`` px, that is nearest to its mirror image.

    >>> [mirror_in_phase(p, 8, 4) for p in (-3, -2, -1, 0, 7, 8, 9)]
    [1, 2, 3, 0, 7, 4, 5]
    """
    if 0 <= position < size:
        return position
    mirrored = -position if position < 0 else 2 * (size - 1) - position
    phase = position % period
    first, last = phase, phase + (size - 1 - phase) // period * period
    # Half a period away there are two; the one nearer to the top or left is as good.
    nearest = phase + -(-(2 * (mirrored - phase) - period) // (2 * period)) * period
    return min(max(nearest, first), last)


def alignment(pattern: CFAPattern, tile: tuple[str, ...]) -> tuple[int, int] | None:
    """How many rows and columns have to go before a mosaic for it to begin like ``tile``.

    None if no shift of the pattern does.

    >>> alignment(CFAPattern(("GR", "BG")), ("RG", "GB"))
    (0, 1)
    """
    for rows, columns in itertools.product(range(pattern.period[0]), range(pattern.period[1])):
        if pattern.crop(top=-rows, left=-columns).tile == tile:
            return rows, columns
    return None
