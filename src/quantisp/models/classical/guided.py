"""Residual interpolation along the letter that is sampled most, for any CFA.

Source: Kiku, Monno, Tanaka, Okutomi, "Residual interpolation for color image demosaicking", ICIP
2013, which interpolates green, estimates red and blue from it by guided filters, and interpolates
what the estimates miss; its iteration, Ye, Ma, "Color image demosaicing using iterative residual
interpolation", IEEE TIP 2015. Here the guide is the letter that occurs most (W of an RGBW CFA,
where it stands for the luminance; G of Bayer), so that the same steps serve every CFA.

::

    mosaic ─┬─▶ guide: rows and columns, weighted by how little the mosaic changes along them ─┐
            │                                                                                  │
            └─▶ each other letter ──▶ a·guide + b, fitted in small windows        ◀────────────┤
                      │                            │                                           │
                      └──▶ sample - estimate ──▶ bilinear ──▶ ( + ) ──▶ letter's plane         │
                                                                              ▼                ▼
                                              RGB ◀── onto the samples ◀── RGB of the planes

Twice, the guide is mended where another letter was sampled, by that sample and the difference of
guide and letter around it, and the other planes are made again.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa import responses
from quantisp.models.classical.interpolation import box, combine, interpolate, smooth, tent
from quantisp.models.classical.letters import LetterMethod

__all__ = ["GuidedResidual"]

# Keeps weights finite where nothing changes; of the square of the full scale.
LEAST_CHANGE = 1e-5
# Draws a guided filter's slope to 1, the colour difference, where the guide is flat.
FLAT = 1e-4
# Chosen on the validation tiles.
ROUNDS, DIFFERENCE_TAPS = 2, 5


class GuidedResidual(LetterMethod):
    """Residual interpolation; its argument is the CFA, at pixel (0, 0) of the input."""

    @property
    def guide(self) -> int:
        """The place of the letter that occurs most, among the CFA's letters."""
        letters, joined = self.pattern.letters, "".join(self.pattern.tile)
        return max(range(len(letters)), key=lambda n: joined.count(letters[n]))

    def restore(
        self, mosaic: Float[Tensor, "n 1 h w"], where: Float[Tensor, "letters h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """The guide, planes along it, both mended in turn; RGB that agrees with the samples."""
        shares = self._shares(mosaic * where[self.guide], where[self.guide])
        guide = self._guide(mosaic, where[self.guide], shares)
        planes = self._planes(guide, mosaic, where)
        for _ in range(ROUNDS):
            for n, plane in enumerate(planes):
                if n != self.guide:
                    mended = mosaic + _along_less_change(guide - plane, shares)
                    guide = torch.where(where[n] > 0.0, mended, guide)
            planes = self._planes(guide, mosaic, where)
        rgb = combine(self.to_rgb, torch.cat(planes, dim=1))
        # Each sample says one thing about its own pixel for sure.
        seen = responses(self.pattern, *mosaic.shape[2:], like=mosaic)
        missing = mosaic - (rgb * seen).sum(dim=1, keepdim=True)
        return rgb + seen * (missing / (seen * seen).sum(dim=0))

    def _planes(self, guide: Tensor, mosaic: Tensor, where: Tensor) -> list[Tensor]:
        return [
            guide if n == self.guide else _along(guide, mosaic * mask, mask, self.reaches[n])
            for n, mask in enumerate(where)
        ]

    def _shares(self, sparse: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """How much interpolating along rows, and along columns, is to count; their sum is 1."""
        area, mask = box(2), where[None, None]
        along_rows, along_columns = (
            1.0 / (LEAST_CHANGE + smooth(_change(sparse, mask, dim=dim), area, area)).square()
            for dim in (3, 2)
        )
        total = along_rows + along_columns
        return along_rows / total, along_columns / total

    def _guide(self, mosaic: Tensor, where: Tensor, shares: tuple[Tensor, Tensor]) -> Tensor:
        """The guide's plane: its samples, and between them what changes least along."""
        reach = self.reaches[self.guide]
        sparse, mask, kernel = mosaic * where, where[None, None], tent(reach)
        everywhere = interpolate(sparse, where[None], (reach,))
        across = _one_way(sparse, mask, everywhere, None, kernel)
        down = _one_way(sparse, mask, everywhere, kernel, None)
        return torch.where(mask > 0.0, mosaic, shares[0] * across + shares[1] * down)


def _along_less_change(difference: Tensor, shares: tuple[Tensor, Tensor]) -> Tensor:
    """Means of a few px along rows and along columns, by their shares."""
    kernel, ones = torch.ones(DIFFERENCE_TAPS), torch.ones_like(difference[:1])
    across = smooth(difference, None, kernel) / smooth(ones, None, kernel)
    down = smooth(difference, kernel, None) / smooth(ones, kernel, None)
    return shares[0] * across + shares[1] * down


def _one_way(
    sparse: Tensor, mask: Tensor, otherwise: Tensor, rows: Tensor | None, columns: Tensor | None
) -> Tensor:
    found = smooth(mask, rows, columns)
    return torch.where(found > 0.0, smooth(sparse, rows, columns) / found.clamp_min(1.0), otherwise)


def _change(sparse: Tensor, mask: Tensor, *, dim: int) -> Tensor:
    """The squared difference of neighbours of one letter, at 1 and 2 px along a direction."""
    total = torch.zeros_like(sparse)
    for step in (1, 2):
        size = sparse.shape[dim]
        if size <= step:
            continue
        ahead, here = sparse.narrow(dim, step, size - step), sparse.narrow(dim, 0, size - step)
        both = mask.narrow(dim, step, size - step) * mask.narrow(dim, 0, size - step)
        squared = (both * (ahead - here)).square()
        # Both ends of a pair lie beside the change.
        total.narrow(dim, 0, size - step).add_(squared)
        total.narrow(dim, step, size - step).add_(squared)
    return total


def _along(guide: Tensor, sparse: Tensor, mask: Tensor, reach: int) -> Tensor:
    """One letter's plane along the guide: a guided estimate, plus what it misses."""
    area = box(reach + 1)
    where = mask[None, None]
    count = smooth(where, area, area).clamp_min(1.0)
    at = guide * where

    def mean(values: Tensor) -> Tensor:
        return smooth(values, area, area) / count

    mean_guide, mean_own = mean(at), mean(sparse)
    # In one kind of rounding, a variance of nothing may come out below zero.
    variance = (mean(at * at) - mean_guide.square()).clamp_min(0.0)
    together = mean(at * sparse) - mean_guide * mean_own
    slope = (together + FLAT) / (variance + FLAT)
    offset = mean_own - slope * mean_guide
    # Means of the windows that a pixel lies in, as in the guided filter.
    ones = torch.ones_like(guide)
    windows = smooth(ones, area, area)
    estimate = (smooth(slope, area, area) * guide + smooth(offset, area, area)) / windows
    residual = interpolate((sparse - estimate) * where, mask[None], (reach,))
    return estimate + residual
