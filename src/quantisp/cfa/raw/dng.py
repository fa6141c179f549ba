"""DNG files with mosaics of any CFA up to 8x8, read.

Source: Adobe, Digital Negative Specification 1.4; TIFF/EP, ISO 12234-2.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt16

from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw.bounds import file_size, reason
from quantisp.cfa.raw.options import RawOptions, black_levels
from quantisp.cfa.raw.tags import numbers, pattern_of, planes_of
from quantisp.cfa.raw.tiff import read_plane
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, SettingError

__all__ = ["NOT_QUITE", "cfa_page", "read_dng", "white_factor"]

CFA, D65 = 32803, 21
SUB_IFDS_READ = 8
LARGEST_TABLE = 1 << 16
ALLOWED = frozenset({"pattern", "black", "white"})
# A white that is this near to the sum of its colours is that sum: rationals are rounded.
NOT_QUITE = 1e-6
# What quantisp writes into ImageDescription.
OURS = "quantisp"


def read_dng(path: Path, options: RawOptions) -> RawImage:
    """Read the first mosaic of a DNG or TIFF/EP file, in its first page or its SubIFDs.

    Samples of 16 bits that are not compressed and have no linearization table stay on disk, mapped.
    With white among four colours, AsShotNeutral's fourth value goes into the pattern's response.

    Args:
        path: of the file.
        options: black and white levels that hold instead of the file's; a pattern is only compared.

    Raises:
        ImageError: damaged, no mosaic, or one that is not linear otherwise than by a table.
        SettingError: the pattern is another than the file's, or the file says itself what is given.
    """
    import tifffile

    options.only(ALLOWED, f"the DNG {path}")
    file_size(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            first: Any = tiff.pages[0]
            raw = _read(cfa_page(first), first, path)
    except SettingError:
        raise
    # tifffile and the codecs raise many kinds on damaged data, struct.error among them.
    except Exception as error:
        raise ImageError(
            f"expected a mosaic in the DNG {path}, found {reason(error)}: replace the file"
        ) from error
    if options.pattern is not None and options.pattern.tile != raw.pattern.tile:
        raise SettingError(
            f"expected the CFA that {path} says itself, {raw.pattern}, found {options.pattern} "
            "asked for: leave out --pattern"
        )
    black = raw.black if options.black is None else options.black
    return replace(
        raw,
        black=black_levels(black, raw.pattern, path),
        white=raw.white if options.white is None else options.white,
    )


def cfa_page(first: Any) -> Any:
    """The page with the mosaic.

    Raises:
        ImageError: there is none.
    """
    page = next((page for page in _with_sub_ifds(first) if page.photometric == CFA), None)
    if page is None:
        raise ImageError("no page with a colour filter array")
    return page


def _with_sub_ifds(first: Any) -> Iterator[Any]:
    yield first
    if first.pages is not None:
        yield from itertools.islice(first.pages, SUB_IFDS_READ)


def _read(page: Any, first: Any, path: Path) -> RawImage:
    pattern, planes = pattern_of(page), planes_of(page)
    codes, largest = _linearized(page, _active(page, read_plane(page, path)))
    white = numbers(page, "WhiteLevel", 1, [largest])[0]
    # Colours are described in the first page, wherever the mosaic is.
    neutral = _neutral(first, planes)
    notes = _notes(first)
    bits = max(int(white).bit_length(), 1)
    return RawImage(
        codes=codes,
        pattern=pattern if neutral is None else _with_white(pattern, planes, neutral),
        black=_black(page, pattern),
        white=white,
        bits=min(max(bits, notes.get("bits", bits)), 16),
        as_shot_neutral=None
        if neutral is None
        else tuple(neutral[planes.index(letter)] for letter in "RGB"),  # pyright: ignore[reportArgumentType]
        color_matrix=_matrix(first, planes),
        orientation=int(numbers(first, "Orientation", 1, [1.0])[0]),
        noise_profile=_noise_profile(page, first),
        metadata=notes.get("metadata", _metadata(first)),
    )


def _active(page: Any, codes: UInt16[np.ndarray, "h w"]) -> UInt16[np.ndarray, "h2 w2"]:
    """Without masked borders, from which neither pattern nor levels count."""
    height, width = codes.shape
    area = numbers(page, "ActiveArea", 4, [0.0, 0.0, float(height), float(width)])
    top, left, bottom, right = (int(edge) for edge in area)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ImageError(f"an active area of {area} in {height}x{width} px")
    return codes[top:bottom, left:right]


def _linearized(
    page: Any, codes: UInt16[np.ndarray, "h w"]
) -> tuple[UInt16[np.ndarray, "h w"], float]:
    """Codes after the linearization table, and the largest that there can be."""
    table = numbers(page, "LinearizationTable", None, [])
    if not table:
        return codes, 2.0 ** int(page.bitspersample) - 1
    if len(table) > LARGEST_TABLE or not all(0 <= n <= 0xFFFF for n in (min(table), max(table))):
        raise ImageError(f"a linearization table of {len(table)} entries")
    entries = np.array(table, dtype=np.uint16)
    # Codes beyond the table's end take its last entry.
    return entries[np.minimum(codes, len(table) - 1)], 2.0 ** int(page.bitspersample) - 1


def _black(page: Any, pattern: CFAPattern) -> tuple[float, ...]:
    """One level for each position of the tile."""
    for name in ("BlackLevelDeltaH", "BlackLevelDeltaV"):
        if any(numbers(page, name, None, [])):
            raise ImageError(f"black levels that differ from row to row or column ({name})")
    rows, columns = (int(n) for n in numbers(page, "BlackLevelRepeatDim", 2, [1.0, 1.0]))
    period_y, period_x = pattern.period
    if rows < 1 or columns < 1 or rows * columns > 64:
        raise ImageError(f"black levels that repeat every {rows}x{columns} px")
    levels = np.reshape(
        numbers(page, "BlackLevel", rows * columns, [0.0] * rows * columns), (rows, columns)
    )
    whole = np.tile(
        levels, (math.lcm(rows, period_y) // rows, math.lcm(columns, period_x) // columns)
    )
    # Usually one repeats as often as the other; else levels would have another period.
    tile = whole[:period_y, :period_x]
    times = (whole.shape[0] // period_y, whole.shape[1] // period_x)
    if not np.array_equal(np.tile(tile, times), whole):
        raise ImageError(f"black levels that repeat every {rows}x{columns} px, unlike the CFA")
    return tuple(tile.ravel().tolist())


def _neutral(first: Any, planes: str) -> tuple[float, ...] | None:
    if "AsShotNeutral" not in first.tags or not set("RGB") <= set(planes):
        return None
    neutral = numbers(first, "AsShotNeutral", len(planes), None)
    if not all(value > 0 for value in neutral):
        raise ImageError(f"AsShotNeutral {neutral}")
    return tuple(neutral)


def white_factor(pattern: CFAPattern, neutral: tuple[float, float, float]) -> float:
    """What W collects of a neutral surface, by the pattern's response."""
    return math.fsum(w * n for w, n in zip(pattern.response("W"), neutral, strict=True))


def _with_white(pattern: CFAPattern, planes: str, neutral: tuple[float, ...]) -> CFAPattern:
    """The pattern with W as sensitive as the neutral says."""
    if "W" not in planes or "W" not in pattern.letters:
        return pattern
    red, green, blue, white = (neutral[planes.index(letter)] for letter in "RGBW")
    factor = white / white_factor(pattern, (red, green, blue))
    if abs(factor - 1) < NOT_QUITE:
        return pattern
    weight = pattern.response("W")
    return pattern.with_white((weight[0] * factor, weight[1] * factor, weight[2] * factor))


def _matrix(first: Any, planes: str) -> Float[np.ndarray, "n 3"] | None:
    """Of daylight (D65) if the file has it, else the first."""
    second = numbers(first, "CalibrationIlluminant2", 1, [0.0])[0] == D65
    name = "ColorMatrix2" if second and "ColorMatrix2" in first.tags else "ColorMatrix1"
    if name not in first.tags:
        return None
    return np.reshape(numbers(first, name, 3 * len(planes), None), (-1, 3))


def _noise_profile(page: Any, first: Any) -> tuple[tuple[float, float], ...] | None:
    values = numbers(page, "NoiseProfile", None, numbers(first, "NoiseProfile", None, []))
    if len(values) % 2:
        raise ImageError(f"NoiseProfile of {len(values)} values")
    return tuple(zip(values[::2], values[1::2], strict=True)) or None


def _metadata(first: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, name in (
        ("make", "Make"),
        ("model", "Model"),
        ("camera", "UniqueCameraModel"),
    ):
        value = first.tags.valueof(name)
        if isinstance(value, str) and value:
            found[key] = value
    exif = first.tags.valueof("ExifTag")
    iso = exif.get("ISOSpeedRatings") if isinstance(exif, dict) else None
    if isinstance(iso, int):
        found["iso"] = str(iso)
    return found


def _notes(first: Any) -> dict[str, Any]:
    """What quantisp wrote that DNG has no tags for; anything else is someone's description."""
    try:
        notes = json.loads(first.tags.valueof("ImageDescription"))[OURS]
        bits, metadata = int(notes["bits"]), notes["metadata"]
        return {"bits": bits, "metadata": {str(k): str(v) for k, v in metadata.items()}}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return {}
