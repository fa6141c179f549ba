"""Bayer mosaics in DNG files, with the levels that give them a scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8, UInt16

from quantisp.cfa.raw.bounds import reason
from quantisp.cfa.raw.tiff import check_page
from quantisp.errors import ImageError

__all__ = ["BayerRaw", "read_bayer_dng"]

# A phone's frame has 12 million samples; a header that promises far more is damaged.
MOST_BYTES = 1 << 27
CFA, SUB_IFDS_READ = 32803, 8
# Values of TIFF tags that are stored as pairs of integers.
RATIONAL = (5, 10)
# A colour that is multiplied by more than this has no signal.
LARGEST_BALANCE = 1000.0

Mosaic = UInt8[np.ndarray, "_ _"] | UInt16[np.ndarray, "_ _"]


@dataclass(frozen=True, kw_only=True)
class BayerRaw:
    """A mosaic as it was stored.

    Args:
        samples: at least 2x2, of the active area.
        positions: (row, column) in the 2x2 tile of R, of G in R's row, of G in B's row, and of B.
        black: of each position in the tile, below ``white``.
        white: the level of saturation.
        neutral: the camera's R, G, B of what was white in the scene, above 0.
    """

    samples: Mosaic
    positions: tuple[tuple[int, int], ...]
    black: Float64[np.ndarray, "2 2"]
    white: float
    neutral: Float64[np.ndarray, " 3"]


def read_bayer_dng(path: Path) -> BayerRaw:
    """Read the first mosaic of a DNG file: bare or compressed, in the first page or in its SubIFDs.

    Raises:
        ImageError: the file is missing or damaged, or its mosaic is not one of 2x2 R, G, B, or not
            linear.
    Source: Adobe, Digital Negative Specification 1.4.
    """
    try:
        return _read(path)
    # tifffile and the codecs raise many kinds on damaged data, struct.error among them.
    except Exception as error:
        raise ImageError(
            f"expected a linear 2x2 RGB Bayer mosaic in {path}, found {reason(error)}: "
            "download the file again, or leave the burst out"
        ) from error


def _read(path: Path) -> BayerRaw:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        first: Any = tiff.pages[0]
        page = next((page for page in _with_sub_ifds(first) if page.photometric == CFA), None)
        if page is None:
            raise ImageError("no mosaic")
        if "LinearizationTable" in page.tags:
            raise ImageError("samples with a linearization table")
        positions = _positions(page)
        check_page(page, path, most_bytes=MOST_BYTES)
        if page.samplesperpixel != 1 or page.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"{page.samplesperpixel} samples a pixel of {page.dtype}")
        white = _numbers(page, "WhiteLevel", 1, [2.0**page.bitspersample - 1])[0]
        # Colours are described in the first page, wherever the mosaic is.
        described = page if "AsShotNeutral" in page.tags else first
        neutral = np.array(_numbers(described, "AsShotNeutral", 3, None))
        black = _black(page)
        if not (neutral > 0).all() or neutral.max() > LARGEST_BALANCE * neutral.min():
            raise ImageError(f"AsShotNeutral {neutral.tolist()}")
        if not (black < white).all():
            raise ImageError(f"black {black.max():g} and white {white:g}")
        samples = _active(page, page.asarray())
    return BayerRaw(samples=samples, positions=positions, black=black, white=white, neutral=neutral)


def _with_sub_ifds(first: Any) -> Iterator[Any]:
    yield first
    if first.pages is not None:
        yield from itertools.islice(first.pages, SUB_IFDS_READ)


def _positions(page: Any) -> tuple[tuple[int, int], ...]:
    """Where R, G in R's row, G in B's row, and B are."""
    size = _numbers(page, "CFARepeatPatternDim", 2, None)
    stored: Any = page.tags.valueof("CFAPattern", b"")
    colours = list(stored if isinstance(stored, (bytes, tuple)) else (stored,))
    planes: Any = page.tags.valueof("CFAPlaneColor", b"\0\1\2")
    square = size == [2, 2] and list(planes) == [0, 1, 2]
    # 0, 1, 2 are R, G, B; both greens lie on a diagonal.
    if not square or sorted(colours) != [0, 1, 1, 2] or colours[0] + colours[3] != 2:
        raise ImageError(f"a colour filter array {size} of {colours}")
    red, blue = divmod(colours.index(0), 2), divmod(colours.index(2), 2)
    return red, (red[0], 1 - red[1]), (blue[0], 1 - blue[1]), blue


def _black(page: Any) -> Float64[np.ndarray, "2 2"]:
    repeat = _numbers(page, "BlackLevelRepeatDim", 2, [1.0, 1.0])
    if any(size not in (1, 2) for size in repeat):
        raise ImageError(f"black levels that repeat every {repeat} px")
    rows, columns = (int(size) for size in repeat)
    levels = _numbers(page, "BlackLevel", rows * columns, [0.0] * (rows * columns))
    return np.broadcast_to(np.array(levels).reshape(rows, columns), (2, 2)).copy()


def _active(page: Any, samples: Mosaic) -> Mosaic:
    """Without masked borders, from which the pattern does not count."""
    height, width = samples.shape
    area = _numbers(page, "ActiveArea", 4, [0.0, 0.0, float(height), float(width)])
    top, left, bottom, right = (int(edge) for edge in area)
    if not (0 <= top <= bottom - 2 <= height - 2 and 0 <= left <= right - 2 <= width - 2):
        raise ImageError(f"an active area of {area} in {height}x{width} px")
    return samples[top:bottom, left:right]


def _numbers(page: Any, name: str, count: int, default: list[float] | None) -> list[float]:
    """A tag's values, rationals divided."""
    tag: Any = page.tags.get(name)
    if tag is None:
        if default is None:
            raise ImageError(f"no {name}")
        return default
    stored: list[Any] = list(tag.value) if isinstance(tag.value, (tuple, bytes)) else [tag.value]
    if int(tag.dtype) in RATIONAL:
        pairs = zip(stored[::2], stored[1::2], strict=True)
        stored = [top / bottom if bottom else math.nan for top, bottom in pairs]
    values = [float(value) for value in stored]
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise ImageError(f"{name} {values}")
    return values
