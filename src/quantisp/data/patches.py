"""Training patches: a decoded cache held once, hard places drawn more often."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from quantisp.data.images import ImageFile, read_picture
from quantisp.errors import ImageError

__all__ = ["PatchCache", "read_training_tiles"]

log = logging.getLogger(__name__)

CELL_PX = 64
# A cell is drawn in proportion to its detail (root mean square of the Laplacian) to this power.
DETAIL_POWER = 0.5
# Even a flat cell counts as this much detail, in 8-bit steps.
LEAST_DETAIL = 1.0

# Anonymous axes: tiles of one set differ in size.
Tile = UInt8[Tensor, "3 _ _"]


def read_training_tiles(
    files: Sequence[ImageFile], *, at_least_px: int, on_read: Callable[[int], None] | None = None
) -> list[Tile]:
    """Decode pictures to 8 bits. One that is damaged or too small is named in the log and skipped.

    Args:
        files: the pictures.
        at_least_px: the smallest height and width that is of use.
        on_read: called with the number of pictures read so far.
    Raises:
        ImageError: no picture was usable.
    """

    def read(file: ImageFile) -> Tile | ImageError:
        try:
            samples = read_picture(file.path).samples
        except ImageError as error:
            return error
        if min(samples.shape[:2]) < at_least_px:
            return ImageError(f"{file.path} is smaller than {at_least_px}x{at_least_px} px")
        if samples.dtype == np.uint16:
            samples = ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1)))

    tiles: list[Tile] = []
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for count, outcome in enumerate(pool.map(read, files), start=1):
            if isinstance(outcome, ImageError):
                log.warning("skipped: %s", outcome)
            else:
                tiles.append(outcome)
            if on_read is not None:
                on_read(count)
    if not tiles:
        raise ImageError(
            f"expected pictures of at least {at_least_px}x{at_least_px} px, none of the "
            f"{len(files)} found is usable: name another folder with --data"
        )
    if len(tiles) < len(files):
        log.warning("%d of %d pictures were skipped", len(files) - len(tiles), len(files))
    return tiles


class PatchCache:
    """Tiles in memory, from which a batch is a pure function of (seed, step).

    Being stateless, it needs no saving: a resumed run draws the same patches.

    Args:
        tiles: 8-bit pictures, each at least as large as a patch.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._tiles = list(tiles)
        cells: list[tuple[int, int, int]] = []
        weights: list[Tensor] = []
        for index, tile in enumerate(self._tiles):
            detail = _detail(tile)
            rows, columns = detail.shape
            cells += [
                (index, y * CELL_PX, x * CELL_PX) for y in range(rows) for x in range(columns)
            ]
            weights.append(detail.flatten())
        self._cells = torch.tensor(cells)
        self._cumulative = torch.cat(weights).double().pow(DETAIL_POWER).cumsum(0)

    def sha256(self) -> str:
        """A digest of the tiles' sizes and details: another set of pictures has another."""
        digest = hashlib.sha256(self._cells.numpy().tobytes())
        digest.update(self._cumulative.numpy().tobytes())
        return digest.hexdigest()

    def batch(self, *, seed: int, step: int, size: int, patch_px: int) -> Float[Tensor, "n 3 p p"]:
        """Patches in [0, 1], each flipped and turned at random.

        Args:
            seed, step: at least 0; they choose the patches, equal values give equal patches.
            size: how many.
            patch_px: height and width of one.
        """
        # Not torch's generator: its CPU engine keeps only 32 bits of a seed.
        generator = np.random.default_rng((seed, step))
        picks = torch.from_numpy(generator.random(size)) * self._cumulative[-1]
        chosen = self._cells[
            torch.searchsorted(self._cumulative, picks).clamp(max=len(self._cells) - 1)
        ]
        shifts = generator.integers(0, CELL_PX, (size, 2))
        turns = generator.integers(0, 8, size)
        patches = [
            _oriented(self._cut(cell, shift, patch_px), turn)
            for cell, shift, turn in zip(
                chosen.tolist(), shifts.tolist(), turns.tolist(), strict=True
            )
        ]
        return torch.stack(patches).float().div_(255.0)

    def _cut(self, cell: list[int], shift: list[int], patch_px: int) -> Tile:
        index, y, x = cell
        tile = self._tiles[index]
        # The patch's centre falls into the cell, as far as the tile's edges allow.
        top = min(max(y + shift[0] - patch_px // 2, 0), tile.shape[1] - patch_px)
        left = min(max(x + shift[1] - patch_px // 2, 0), tile.shape[2] - patch_px)
        return tile[:, top : top + patch_px, left : left + patch_px]


def _oriented(patch: Tile, turn: int) -> Tile:
    patch = torch.rot90(patch, turn % 4, (1, 2))
    return patch.flip(2) if turn >= 4 else patch


def _detail(tile: Tile) -> Float[Tensor, "rows columns"]:
    """Root mean square of the Laplacian per cell, in 8-bit steps; cells at the edges may be cut."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    edges = functional.conv2d(tile.float()[:, None], kernel, padding=0)
    energy = functional.avg_pool2d(edges.square().mean(0)[None], CELL_PX, ceil_mode=True)[0, 0]
    return energy.sqrt().clamp_(min=LEAST_DETAIL)
