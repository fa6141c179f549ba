"""Normalised convolution: sparse samples spread by a kernel, divided by what reached each pixel.

Source: Knutsson, Westin, "Normalized and differential convolution", CVPR 1993.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quantisp.cfa import CFAPattern

__all__ = ["box", "combine", "interpolate", "reach_px", "smooth", "tent"]


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
        rows: the symmetric weights from row to row, an odd number; None leaves this direction out.
        columns: the weights from column to column.
    """
    if rows is not None:
        planes = _smooth_along(planes, rows, dim=2)
    return planes if columns is None else _smooth_along(planes, columns, dim=3)


def _smooth_along(planes: Tensor, weights: Tensor, *, dim: int) -> Tensor:
    if planes.is_meta:
        return _as_convolution(planes, weights, dim=dim)
    # Sums of shifted planes: many times faster than convolving few channels, and in the same
    # order whatever the size is, so that tiles are the whole to the last bit.
    middle, size = len(weights) // 2, planes.shape[dim]
    values: list[float] = weights.tolist()
    total = planes * values[middle]
    for step in range(1, min(middle + 1, size)):
        weighted = planes if values[middle + step] == 1.0 else planes * values[middle + step]
        for ahead in (step, -step):
            source = weighted.narrow(dim, max(ahead, 0), size - step)
            total.narrow(dim, max(-ahead, 0), size - step).add_(source)
    return total


def _as_convolution(planes: Tensor, weights: Tensor, *, dim: int) -> Tensor:
    """The same as an operation whose multiplications are counted."""
    channels, taps = planes.shape[1], len(weights)
    shape = (channels, 1, taps, 1) if dim == 2 else (channels, 1, 1, taps)
    padding = (taps // 2, 0) if dim == 2 else (0, taps // 2)
    return functional.conv2d(planes, planes.new_empty(shape), padding=padding, groups=channels)


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
    """Each plane from its own samples, which stay, by a tent of its own reach between them.

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
        # Where costs are counted, by shapes alone, there is no border.
        if not found.is_meta and bool((found < 1.0).any()):
            further = smooth(plane, wide, wide) / smooth(mask, wide, wide).clamp_min(1.0)
            value = torch.where(found < 1.0, further, value)
        # A sample stays what it is, whatever lies around it.
        parts.append(torch.where(mask > 0.0, plane, value))
    return torch.cat(parts, dim=1)


def combine(
    weights: list[list[float]], planes: Float[Tensor, "n letters h w"]
) -> Float[Tensor, "n c h w"]:
    """Weighted sums of planes, one for each row of ``weights``, in one order at every size."""
    rows: list[Tensor] = []
    for row in weights:
        terms = [planes[:, n] * weight for n, weight in enumerate(row) if weight != 0.0]
        rows.append(sum(terms[1:], start=terms[0]) if terms else torch.zeros_like(planes[:, 0]))
    return torch.stack(rows, dim=1)
