"""Raw files of cameras: pixels and levels by LibRaw, the CFA by the file's own tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw.bounds import check_size, file_size, reason
from quantisp.cfa.raw.dng import cfa_page
from quantisp.cfa.raw.options import RawOptions, black_levels
from quantisp.cfa.raw.tags import pattern_of
from quantisp.cfa.raw.tags import smallest as smallest_tile
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, PatternError, SettingError

__all__ = ["CAMERA_SUFFIXES", "read_camera_raw"]

CAMERA_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3fr", "arw", "cr2", "cr3", "dcr", "erf", "iiq", "kdc", "mef", "mrw", "nef", "nrw"),
        *("orf", "pef", "raf", "rw2", "rwl", "srw"),
    )
)
ALLOWED = frozenset({"pattern", "black", "white"})
# LibRaw's flip, as EXIF's orientation.
ORIENTATION = {0: 1, 3: 3, 5: 8, 6: 6}


def read_camera_raw(path: Path, options: RawOptions) -> RawImage:
    """Read a camera's raw file through rawpy.

    LibRaw takes patterns larger than 2x2 for others without a word; therefore its pattern must be
    the one that the file's TIFF/EP tags say. A file without such tags needs ``options.pattern``.

    Args:
        path: of the file.
        options: black and white levels that hold instead of the file's; and the pattern.

    Raises:
        SettingError: rawpy is not installed, or the pattern has to be given, or is another.
        ImageError: damaged, no mosaic, or LibRaw sees another CFA than the tags.
    """
    options.only(ALLOWED, f"the camera's file {path}")
    file_size(path)
    rawpy = _rawpy()
    try:
        with rawpy.imread(str(path)) as capture:
            raw = _convert(capture, _tags_pattern(path), options, path)
    except (SettingError, ImageError):
        raise
    # LibRaw's errors are of many kinds.
    except Exception as error:
        raise ImageError(
            f"expected a camera's raw file that LibRaw knows at {path}, found {reason(error)}: "
            "replace the file, or convert it to DNG"
        ) from error
    return raw


def _rawpy() -> Any:
    try:
        import rawpy
    except ImportError:
        raise SettingError(
            "expected the package rawpy for a camera's raw file, found none: "
            "pip install 'quantisp[raw]', or convert the file to DNG"
        ) from None
    return rawpy


def _convert(capture: Any, tags: CFAPattern | None, options: RawOptions, path: Path) -> RawImage:
    sizes = capture.sizes
    check_size(path, sizes.raw_width, sizes.raw_height, stored_bytes=file_size(path))
    if capture.raw_pattern is None or capture.raw_image_visible.ndim != 2:
        raise ImageError(
            f"expected a mosaic in {path}, found a picture without a colour filter array: "
            "name another file"
        )
    seen = _seen_pattern(capture)
    _agree(seen, tags, options.pattern, path)
    codes = np.array(capture.raw_image_visible, dtype=np.uint16)
    channels = list(capture.black_level_per_channel)
    period_y, period_x = seen.period
    black = tuple(
        float(channels[int(capture.raw_colors_visible[y, x])])
        for y in range(period_y)
        for x in range(period_x)
    )
    white = float(capture.white_level)
    return RawImage(
        codes=codes,
        pattern=seen,
        black=black if options.black is None else black_levels(options.black, seen, path),
        white=white if options.white is None else options.white,
        bits=min(16, max(1, int(white).bit_length())),
        as_shot_neutral=_neutral(list(capture.camera_whitebalance)),
        color_matrix=_matrix(capture),
        orientation=ORIENTATION.get(int(sizes.flip), 1),
        metadata={"reader": "LibRaw"},
    )


def _seen_pattern(capture: Any) -> CFAPattern:
    """LibRaw's, at the first visible pixel; the second green is green."""
    names = capture.color_desc.decode("ascii", "replace")
    period_y, period_x = capture.raw_pattern.shape
    colours = capture.raw_colors_visible[:period_y, :period_x]
    tile = tuple("".join(names[int(colour)] for colour in row) for row in colours)
    try:
        return CFAPattern(smallest_tile(tile)).recognised()
    except PatternError as error:
        raise ImageError(f"the colours {names}") from error


def _tags_pattern(path: Path) -> CFAPattern | None:
    """What the tags of a TIFF-based file say; None where they say nothing."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return pattern_of(cfa_page(tiff.pages[0]))
    # Many cameras' files are no TIFF, or damaged: then nothing is said.
    except Exception:  # noqa: BLE001
        return None


def _agree(seen: CFAPattern, tags: CFAPattern | None, given: CFAPattern | None, path: Path) -> None:
    if tags is not None and tags.tile != seen.tile:
        raise ImageError(
            f"expected LibRaw to see the CFA that the tags of {path} say, {tags}, found {seen}: "
            "convert the file to DNG, which quantisp reads without LibRaw"
        )
    if given is not None and given.tile != seen.tile:
        raise SettingError(
            f"expected the CFA of {path}, {seen}, found {given} asked for: correct --pattern"
        )
    if tags is None and given is None:
        raise SettingError(
            f"expected tags that say the CFA of {path}, found none; LibRaw takes it for {seen}: "
            f"give --pattern {'/'.join(seen.tile)} if that is right, or convert the file to DNG"
        )


def _neutral(gains: list[float]) -> tuple[float, float, float] | None:
    if len(gains) < 3 or not all(gain > 0 for gain in gains[:3]):
        return None
    least = min(gains[:3])
    return (least / gains[0], least / gains[1], least / gains[2])


def _matrix(capture: Any) -> Float64[np.ndarray, "3 3"] | None:
    matrix = np.asarray(capture.rgb_xyz_matrix, dtype=float)[:3]
    return matrix if matrix.any() else None
