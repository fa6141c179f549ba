"""Normalised convolution: sparse samples spread by a kernel, divided by what reached each pixel.

Source: Knutsson, Westin, "Normalized and differential convolution", CVPR 1993.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quantisp.cfa import CFAPattern

__all__ = ["box", "interpolate", "reach_px", "smooth", "tent"]


def tent(reach: int) -> Float[Tensor, " k"]:
    """1, 2, ..., reach, ..., 2, 1: the weights of linear interpolation, ``reach`` px apart."""
    steps = torch.arange(1 - reach, reach, dtype=torch.float32)
    return reach - steps.abs()


def box(radius: int) -> Float[Tensor, " k"]:
    """Ones."""
    return torch.ones(2 * radius + 1)


def smooth(
    planes: Float[Tensor, "n c h w"],
    rows: Float[Tensor, " k"] | None,
    columns: Float[Tensor, " m"] | None,
) -> Float[Tensor, "n c h w"]:
    """Each plane convolved with a kernel along its columns, then along its rows; zeros outside.

    Args:
        planes: any.
        rows: the weights from row to row, an odd number; None leaves this direction out.
        columns: the weights from column to column.
    """
    channels = planes.shape[1]
    if rows is not None:
        kernel = rows.to(planes).view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        planes = functional.conv2d(planes, kernel, padding=(len(rows) // 2, 0), groups=channels)
    if columns is not None:
        kernel = columns.to(planes).view(1, 1, 1, -1).expand(channels, 1, 1, -1)
        planes = functional.conv2d(planes, kernel, padding=(0, len(columns) // 2), groups=channels)
    return planes


def reach_px(pattern: CFAPattern, letter: str) -> int:
    """The narrowest tent that finds a sample of ``letter`` from every pixel.

    >>> reach_px(CFAPattern.named("bayer"), "R"), reach_px(CFAPattern.named("rgbw-kodak"), "R")
    (2, 3)
    """
    height, width = pattern.period
    places = [(y, x) for y in range(height) for x in range(width)]
    there = [(y, x) for y, x in places if pattern.letter(y, x) == letter]
    # The tile repeats, so that a sample is at most half a period away in each direction.
    return 1 + max(
        min(max(_apart(y - v, height), _apart(x - u, width)) for v, u in there) for y, x in places
    )


def _apart(distance: int, period: int) -> int:
    return min(distance % period, -distance % period)


def interpolate(
    sparse: Float[Tensor, "n c h w"],
    where: Float[Tensor, "c h w"],
    reaches: tuple[int, ...],
) -> Float[Tensor, "n c h w"]:
    """Each plane from its own samples, by a tent of its own reach.

    At a border, where a tent may find nothing, twice the reach is used.

    Args:
        sparse: samples where there are some, zero elsewhere.
        where: 1 where there is a sample.
        reaches: of each plane, as of :func:`reach_px`.
    """
    parts: list[Tensor] = []
    for number, reach in enumerate(reaches):
        plane, mask = sparse[:, number : number + 1], where[None, number : number + 1]
        near, wide = tent(reach), tent(2 * reach)
        found = smooth(mask, near, near)
        value = smooth(plane, near, near) / found.clamp_min(1.0)
        if bool((found < 1.0).any()):
            further = smooth(plane, wide, wide) / smooth(mask, wide, wide).clamp_min(1.0)
            value = torch.where(found < 1.0, further, value)
        parts.append(value)
    return torch.cat(parts, dim=1)
