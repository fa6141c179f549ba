"""Is the pattern at the right phase? Under the right one, sites of one letter see the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, Float64

from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw_image import RawImage, linear

__all__ = ["phase_doubt", "phase_roughness"]

# Windows of about this side, evenly spread, so that a large file is not read as a whole.
WINDOW_PX = 240
WINDOWS_A_SIDE = 4
# Cells that are averaged to one value, so that noise and texture cancel and colours stay.
CELLS_AVERAGED = 4
# Another phase must be this much smoother, and the difference visible: 1% of full scale, squared.
CLEARLY = 0.5
LEAST_DIFFERENCE = 1e-4


def phase_doubt(raw: RawImage) -> str | None:
    """A warning, if another phase of the pattern gives a clearly smoother picture.

    Between phases that exchange whole colours, such as RGGB and BGGR, nothing can be said, nor on a
    grey scene, nor of a tile with no letter twice.

    Returns:
        One line, or None.
    """
    roughness = phase_roughness(raw)
    claimed = roughness[0, 0]
    best = min(roughness, key=lambda shift: roughness[shift])
    if claimed - roughness[best] < LEAST_DIFFERENCE or roughness[best] > CLEARLY * claimed:
        return None
    other = raw.pattern.crop(top=best[0], left=best[1])
    return (
        f"its CFA looks like {other} rather than {raw.pattern}: with that phase the sites of one "
        f"colour differ {(claimed / max(roughness[best], 1e-12)) ** 0.5:.1f} times less; check "
        "--pattern, and how the file was cropped or flipped"
    )


def phase_roughness(raw: RawImage) -> dict[tuple[int, int], float]:
    """How much sites of one letter differ, for each shift of the pattern (four of a 2x2 tile).

    The mean over places of the variance among the tile's positions that have the same letter,
    each averaged over some cells.

    Returns:
        By (rows, columns) that the pattern is shifted, (0, 0) first; variances of linear values,
        0 to 1.
    """
    period_y, period_x = raw.pattern.period
    cells = _position_means(raw)
    found: dict[tuple[int, int], float] = {}
    seen: set[CFAPattern] = set()
    for top in range(period_y):
        for left in range(period_x):
            shifted = raw.pattern.crop(top=top, left=left)
            if shifted not in seen:
                seen.add(shifted)
                found[top, left] = _within_letters(cells, shifted)
    return found


def _within_letters(cells: Float[np.ndarray, "places positions"], pattern: CFAPattern) -> float:
    letters = np.array(list("".join(pattern.tile)))
    if len(cells) == 0:
        return 0.0
    total = sum(
        float(cells[:, letters == letter].var(axis=1).mean()) * int((letters == letter).sum())
        for letter in pattern.letters
    )
    return total / len(letters)


def _position_means(raw: RawImage) -> Float[np.ndarray, "places positions"]:
    """Means of each position of the tile over blocks of cells."""
    period_y, period_x = raw.pattern.period
    block_y, block_x = period_y * CELLS_AVERAGED, period_x * CELLS_AVERAGED
    found: list[Float64[np.ndarray, "places positions"]] = []
    for window in _windows(raw):
        rows, columns = window.shape[0] // block_y, window.shape[1] // block_x
        blocks = window[: rows * block_y, : columns * block_x].reshape(
            rows, CELLS_AVERAGED, period_y, columns, CELLS_AVERAGED, period_x
        )
        means = blocks.mean(axis=(1, 4), dtype=np.float64)
        found.append(means.transpose(0, 2, 1, 3).reshape(-1, period_y * period_x))
    return np.concatenate(found)


def _windows(raw: RawImage) -> Iterator[Float32[np.ndarray, "_ _"]]:
    """Some windows that begin on whole periods, saturated values clipped."""
    starts = [
        _starts(size, period) for size, period in zip(raw.size, raw.pattern.period, strict=True)
    ]
    for top in starts[0]:
        for left in starts[1]:
            codes = raw.codes[top : top + WINDOW_PX, left : left + WINDOW_PX]
            yield np.clip(linear(replace(raw, codes=codes)), 0.0, 1.0)


def _starts(size: int, period: int) -> list[int]:
    if size <= WINDOW_PX * WINDOWS_A_SIDE:
        return list(range(0, size, WINDOW_PX // period * period))
    spaced = np.linspace(0, size - WINDOW_PX, WINDOWS_A_SIDE)
    return [int(start) // period * period for start in spaced]
