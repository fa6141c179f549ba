"""Training patches, cut on whatever device holds the pictures; hard places drawn more often."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.data.tiles import CELL_PX, TileSet

__all__ = ["PatchCache"]


class PatchCache:
    """Pictures, from which a batch is a pure function of (seed, step).

    Being stateless, it needs no saving: a resumed run draws the same patches. Where a patch is cut
    and how it is turned is decided on the processor, from a few numbers; the samples stay on
    their device.

    Args:
        tiles: 8-bit pictures, each at least as large as a patch.
        detail_power: a cell is drawn in proportion to its detail (root mean square of the
            Laplacian) to this power; 0 draws all places alike.
        exposure_jitter: a patch is darkened by up to this share, 0 to 1.
        colour_jitter: each of R, G and B is darkened by up to this share, 0 to 1, on its own.
    """

    def __init__(
        self,
        tiles: TileSet,
        *,
        detail_power: float = 0.5,
        exposure_jitter: float = 0.0,
        colour_jitter: float = 0.0,
    ) -> None:
        self._tiles = tiles
        self._jitter = (exposure_jitter, colour_jitter)
        sizes = [(entry.offset, entry.height, entry.width) for entry in tiles.entries]
        self._sizes = np.array(sizes, dtype=np.int64)
        cells = [_cells(entry.height, entry.width) for entry in tiles.entries]
        owners = np.repeat(np.arange(len(cells)), [len(of_tile) for of_tile in cells])
        self._cells = np.column_stack([owners, np.concatenate(cells)])
        details = np.concatenate([entry.detail for entry in tiles.entries])
        self._cumulative = np.cumsum(details**detail_power)

    def sha256(self) -> str:
        """A digest of the pictures: another set has another."""
        return self._tiles.sha256()

    def batch(
        self,
        *,
        seed: int,
        step: int,
        size: int,
        patch_px: int | tuple[int, int],
        part: tuple[int, int] = (0, 1),
    ) -> Float[Tensor, "n 3 h w"]:
        """Patches in [0, 1], each flipped and turned at random, and darkened if there is jitter.

        They are RGB: whichever way a patch is turned, the CFA that is laid over it keeps its phase.

        Args:
            seed, step: at least 0; they choose the patches, equal values give equal patches.
            size: how many, over all parts.
            patch_px: height and width of one, as one number where they are equal; else patches are
                flipped and turned upside down, but stay as high and wide.
            part: (k, n): only every n-th patch of the batch, from the k-th on.
        """
        # Not torch's generator: its CPU engine keeps only 32 bits of a seed.
        generator = np.random.default_rng((seed, step))
        picks = generator.random(size) * self._cumulative[-1]
        shifts = generator.integers(0, CELL_PX, (size, 2))
        turns = generator.integers(0, 8, size)
        darker = generator.random((size, 4))
        first, parts = part
        mine = slice(first, None, parts)

        found = np.searchsorted(self._cumulative, picks[mine]).clip(max=len(self._cells) - 1)
        owner, y, x = self._cells[found].T
        offset, height, width = self._sizes[owner].T
        # The patch's centre falls into the cell, as far as the tile's edges allow.
        centre_y, centre_x = y + shifts[mine, 0], x + shifts[mine, 1]
        rows, columns = (patch_px, patch_px) if isinstance(patch_px, int) else patch_px
        top = (centre_y - rows // 2).clip(0, height - rows)
        left = (centre_x - columns // 2).clip(0, width - columns)
        corner = offset + top * width + left
        device = self._tiles.samples.device
        places = np.stack([corner, width, height * width, turns[mine]])
        index = _sample_index(torch.from_numpy(places).to(device), (rows, columns))
        patches = self._tiles.samples[index].float().div_(255.0)
        if not any(self._jitter):
            return patches
        gains = torch.from_numpy(self._gains(darker[mine])).to(device)
        return patches * gains[:, :, None, None]

    def _gains(self, darker: np.ndarray) -> np.ndarray:
        exposure, colour = self._jitter
        gains = (1.0 - exposure * darker[:, :1]) * (1.0 - colour * darker[:, 1:])
        return gains.astype(np.float32)


def _cells(height: int, width: int) -> np.ndarray:
    """The top left corners of a picture's cells, row by row."""
    rows, columns = np.arange(0, height - 2, CELL_PX), np.arange(0, width - 2, CELL_PX)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _sample_index(places: Int[Tensor, "4 n"], patch_px: tuple[int, int]) -> Int[Tensor, "n 3 h w"]:
    """Where each sample of each patch lies: a turned patch is read in another order."""
    corner, width, plane, turn = places[:, :, None, None, None]
    rows, columns = _orientations(*patch_px, str(places.device))
    planes = torch.arange(3, device=places.device)[:, None, None]
    turned = turn.flatten()
    return corner + planes * plane + rows[turned][:, None] * width + columns[turned][:, None]


@lru_cache(maxsize=8)
def _orientations(height: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel of a square, in each of its eight orientations (8, h, w).

    Of a rectangle, the four that are as high and wide come twice.
    """
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    quarters = range(4) if height == width else (0, 2, 0, 2)
    turned = [torch.rot90(torch.stack(grid), turns, (1, 2)) for turns in quarters]
    both = torch.stack([*turned, *(square.flip(2) for square in turned)], dim=1).to(device)
    return both[0], both[1]
