"""Linear filters of least squared error, one for each phase of the CFA and each colour.

Source: Chaix de Lavarène, Alleysson, Hérault, "Practical implementation of LMMSE demosaicing using
luminance and chrominance spaces", CVIU 2007; for luma and chroma filters of least squares (LSLCD),
Leung, Jeon, Dubois, IEEE TIP 2011. Those fit parts of the chain; here the whole map from a window
of samples to the colours of its middle is fitted, which no other linear filter of the same
support undercuts on the pictures that it was fitted to.

The dataflow, for a CFA of P x Q px::

    mosaic ──▶ mirrored in phase ──▶ windows of (P + 2m) x (Q + 2m) px, one a tile
           ──▶ a matrix ──▶ 3 x P x Q values ──▶ unfold by the tile ──▶ RGB
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern, extend_in_phase, mosaic
from quantisp.errors import RunError

__all__ = ["MARGIN_PX", "LinearFilters", "LinearFit"]

# How far a filter reaches beyond its tile.
MARGIN_PX = 8
# Of the mean of the samples' energies: it decides only what the pictures leave open.
RIDGE = 1e-7
WINDOWS_AT_ONCE = 1 << 14


class LinearFilters(nn.Module):
    """Restores RGB from a mosaic by one linear filter for each phase and colour.

    Args:
        pattern: the CFA, at pixel (0, 0) of the input.
    """

    def __init__(self, pattern: CFAPattern) -> None:
        super().__init__()
        self.pattern = pattern
        height, width = pattern.period
        window = (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
        self.filters = nn.Conv2d(1, 3 * height * width, window, stride=(height, width), bias=False)

    def forward(self, mosaic: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Restore RGB, in the domain of the mosaic, not clipped."""
        height, width = mosaic.shape[2:]
        values = self.filters(_extended(mosaic, self.pattern))
        count, _, rows, columns = values.shape
        tall, wide = self.pattern.period
        # Channels are colour, row and column within the tile.
        phases = values.view(count, 3, tall, wide, rows, columns).permute(0, 1, 4, 2, 5, 3)
        rgb = phases.reshape(count, 3, rows * tall, columns * wide)
        return rgb[:, :, :height, :width]


class LinearFit:
    """Collects pictures, and finds the filters of least squared error over all of them.

    Args:
        pattern: the CFA.
    """

    def __init__(self, pattern: CFAPattern) -> None:
        self.pattern = pattern
        height, width = pattern.period
        taps = (height + 2 * MARGIN_PX) * (width + 2 * MARGIN_PX)
        self.energy = torch.zeros(taps, taps, dtype=torch.float64)
        self.towards = torch.zeros(taps, 3 * height * width, dtype=torch.float64)
        self.windows = 0

    def add(self, rgb: Float[Tensor, "n 3 h w"]) -> None:
        """Take these pictures into account.

        Args:
            rgb: in [0, 1]; rows and columns beyond whole tiles are left out.
        """
        tall, wide = self.pattern.period
        height, width = (size // p * p for size, p in zip(rgb.shape[2:], (tall, wide), strict=True))
        whole = rgb[:, :, :height, :width]
        samples = _extended(mosaic(whole, self.pattern), self.pattern)
        window = (tall + 2 * MARGIN_PX, wide + 2 * MARGIN_PX)
        # One column a window; both in the order of the filters.
        given = functional.unfold(samples, window, stride=(tall, wide)).permute(0, 2, 1)
        cells = whole.unfold(2, tall, tall).unfold(3, wide, wide).permute(0, 2, 3, 1, 4, 5)
        wanted = cells.reshape(-1, 3 * tall * wide)
        pairs = zip(
            given.reshape(-1, len(self.energy)).split(WINDOWS_AT_ONCE),
            wanted.split(WINDOWS_AT_ONCE),
            strict=True,
        )
        for x, y in pairs:
            # Sums of some thousand products in float32, sums of sums in float64.
            self.energy += (x.T @ x).double()
            self.towards += (x.T @ y).double()
        self.windows += len(wanted)

    def solve(self) -> LinearFilters:
        """The filters.

        Raises:
            RunError: too few pictures were added.
        """
        if self.windows < 4 * len(self.energy):
            raise RunError(
                f"expected at least {4 * len(self.energy)} tiles of {self.pattern} to fit filters "
                f"to, found {self.windows}: give more or larger pictures"
            )
        ridge = RIDGE * self.energy.diagonal().mean() * torch.eye(len(self.energy))
        solved = torch.linalg.solve(self.energy + ridge, self.towards)
        filters = LinearFilters(self.pattern)
        with torch.no_grad():
            filters.filters.weight.copy_(solved.T.reshape(filters.filters.weight.shape))
        return filters.eval().requires_grad_(False)


def _extended(samples: Tensor, pattern: CFAPattern) -> Tensor:
    """With a margin for the filters, and to whole tiles."""
    missing = [-size % p for size, p in zip(samples.shape[2:], pattern.period, strict=True)]
    return extend_in_phase(
        samples,
        before=(MARGIN_PX, MARGIN_PX),
        after=(MARGIN_PX + missing[0], MARGIN_PX + missing[1]),
        period=pattern.period,
    )
