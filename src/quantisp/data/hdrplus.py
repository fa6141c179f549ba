"""Bursts of the HDR+ data set, as full RGB pictures to train on.

Source: Hasinoff et al., "Burst photography for high dynamic range and low-light imaging on mobile
cameras", ACM Transactions on Graphics 35(6), 2016. The published layout::

    ROOT/bursts/ID/payload_N000.dng ...            raw frames, not used here
                   lens_shading_map_N000.tiff ...  (rows, columns, 4) float gains of R, Gr, Gb, B
                   rgb2rgb.txt                     3x3 numbers, row by row: from white-balanced
                                                   camera RGB to linear sRGB
    ROOT/results_DATE/ID/merged.dng                the frames aligned and merged, a Bayer mosaic
                         final.jpg                 the finished photograph
                         reference_frame.txt       the frame that the others were aligned to
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt8, UInt16
from PIL import Image

from quantisp.cfa.raw.bounds import reason
from quantisp.cfa.raw.tiff import check_page
from quantisp.data.dng import BayerRaw, read_bayer_dng
from quantisp.data.images import ImageFile, read_picture
from quantisp.errors import ImageError

__all__ = [
    "HDRPlusFile",
    "Source",
    "develop_merged",
    "find_bursts",
    "is_hdrplus",
    "read_final",
]

log = logging.getLogger(__name__)

Source = Literal["final", "merged"]

RESULT: dict[Source, str] = {"final": "final.jpg", "merged": "merged.dng"}
# final.jpg is an average of squares of this side: each then holds a whole cell of the camera's
# 2x2 mosaic, and one sample of a JPEG's halved chroma.
REDUCTION = 2
# Far above what is published (13x17 gains, nine numbers), far below what could fill the memory.
MOST_MAP_BYTES = 1 << 20
MOST_TEXT_BYTES = 4096
LARGEST_GAIN = 1000.0
LARGEST_COEFFICIENT = 100.0


@dataclass(frozen=True, kw_only=True)
class HDRPlusFile(ImageFile):
    """A burst's result, and what it is developed with.

    Args:
        source: ``final`` where ``path`` is a final.jpg, ``merged`` where it is a merged.dng.
        burst: the folder with ``rgb2rgb.txt`` and the shading maps; read for ``merged`` only.
    """

    source: Source
    burst: Path


def is_hdrplus(root: Path) -> bool:
    """Whether the folders below ``root`` are laid out as in the HDR+ data set."""
    patterns = [f"results_*/*/{name}" for name in RESULT.values()]
    patterns += ["bursts/*/payload_N*.dng", "bursts/*/rgb2rgb.txt"]
    return any(True for pattern in patterns for _ in root.glob(pattern))


def find_bursts(root: Path, source: Source) -> tuple[HDRPlusFile, ...]:
    """The bursts that have a result, by their ID; the latest of several results is taken.

    Returns:
        Sorted by ID, which is the name. Bursts without a result are counted in the log.
    Raises:
        ImageError: no burst has one.
    """
    wanted = RESULT[source]
    found: dict[str, HDRPlusFile] = {}
    # results_20171023 is the later pipeline, results_20161014 that of the paper.
    for results in sorted(root.glob("results_*"), reverse=True):
        for path in results.glob(f"*/{wanted}"):
            name = path.parent.name
            if not name.startswith(".") and name not in found and path.is_file():
                found[name] = HDRPlusFile(
                    name=name.encode("utf-8", "backslashreplace").decode(),
                    path=path,
                    source=source,
                    burst=root / "bursts" / name,
                )
    if not found:
        raise ImageError(
            f"expected the HDR+ data set's results_DATE/ID/{wanted} in {root}, found none: "
            "download the results, or take the other source"
        )
    without = [p.name for p in (root / "bursts").glob("*") if p.is_dir() and p.name not in found]
    if without:
        log.warning("%d bursts have no %s, %s first", len(without), wanted, min(without))
    return tuple(found[name] for name in sorted(found))


def read_final(file: HDRPlusFile) -> UInt8[np.ndarray, "_ _ 3"]:
    """The finished photograph at half its size: averages of 2x2 pixels, an odd edge left out.

    Returns:
        sRGB, upright, without JPEG's 8x8 blocks and what the camera interpolated at full size.
    Raises:
        ImageError: the file is missing or damaged, or has less than 2x2 pixels.
    """
    samples = read_picture(file.path).samples
    height, width = (size // REDUCTION * REDUCTION for size in samples.shape[:2])
    if samples.dtype != np.uint8 or min(height, width) == 0:
        raise _unusable(
            file.path,
            "a photograph of 8 bits and at least 2x2 px",
            f"{samples.dtype} of {samples.shape[0]}x{samples.shape[1]} px",
        )
    cropped = np.ascontiguousarray(samples[:height, :width])
    return np.asarray(Image.fromarray(cropped).reduce(REDUCTION))


def develop_merged(file: HDRPlusFile) -> UInt16[np.ndarray, "_ _ 3"]:
    """The merged mosaic as a picture of half its size, in which no colour is interpolated.

    Black is removed and the white level is 1; each sample is multiplied by its plane's lens shading
    gain; a pixel takes R, the mean of both G, and B of one Bayer cell; the colours are divided by
    AsShotNeutral, so that none is multiplied by less than 1 and what is saturated becomes white;
    then ``rgb2rgb.txt``, [0, 1], and the sRGB curve. The DNG's own copy of the gains (OpcodeList2)
    is not applied a second time, nor is its orientation.

    Returns:
        sRGB, not tone-mapped: as dark as the burst was exposed.
    Raises:
        ImageError: a file of the burst is missing, damaged, or not what the data set publishes.
    Source: Hasinoff et al. 2016, section 6, steps 1 to 3 and 6 of the finishing.
    """
    matrix = _read_matrix(file.burst / "rgb2rgb.txt")
    gains = _read_shading_map(file.burst / f"lens_shading_map_N{_reference_frame(file):03d}.tiff")
    cells = _bin(read_bayer_dng(file.path), gains)
    linear = np.clip(np.minimum(cells, 1.0) @ matrix.T.astype(np.float32), 0.0, 1.0)
    return (_srgb_curve(linear) * 65535.0 + 0.5).astype(np.uint16)


def _bin(raw: BayerRaw, gains: Float32[np.ndarray, "_ _ 4"]) -> Float32[np.ndarray, "_ _ 3"]:
    """White-balanced camera RGB, one pixel a Bayer cell; 1 is saturated."""
    rows, columns = (size // 2 * 2 for size in raw.samples.shape)
    planes: list[Float32[np.ndarray, "_ _"]] = []
    for plane, (y, x) in enumerate(raw.positions):
        black = np.float32(raw.black[y, x])
        samples = raw.samples[y:rows:2, x:columns:2].astype(np.float32)
        plane_gains = _upsample(gains[:, :, plane], raw.samples.shape, (y, x), samples.shape)
        planes.append((samples - black) / (np.float32(raw.white) - black) * plane_gains)
    red, green_in_red_row, green_in_blue_row, blue = planes
    cells = np.stack([red, (green_in_red_row + green_in_blue_row) / 2, blue], axis=2)
    return cells * (raw.neutral.max() / raw.neutral).astype(np.float32)


def _upsample(
    grid: Float32[np.ndarray, "_ _"],
    size: tuple[int, ...],
    offset: tuple[int, int],
    shape: tuple[int, ...],
) -> Float32[np.ndarray, "_ _"]:
    """Every second value, from ``offset`` on, of the grid stretched over ``size`` (bilinear).

    The grid's corners lie on the picture's corner pixels (Android's ``lensShadingMap``).
    """
    for axis in (0, 1):
        pixels = offset[axis] + 2.0 * np.arange(shape[axis])
        at = pixels * (grid.shape[axis] - 1) / (size[axis] - 1)
        before = np.minimum(at.astype(np.intp), grid.shape[axis] - 2)
        share = (at - before).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None, :]
        lower, upper = np.take(grid, before, axis), np.take(grid, before + 1, axis)
        grid = lower + (upper - lower) * share
    return grid


def _srgb_curve(linear: Float32[np.ndarray, "_ _ 3"]) -> Float32[np.ndarray, "_ _ 3"]:
    """From [0, 1] to [0, 1]. Source: IEC 61966-2-1."""
    curve = 1.055 * np.power(linear, np.float32(1 / 2.4)) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def _read_matrix(path: Path) -> Float64[np.ndarray, "3 3"]:
    words = _read_text(path, "3x3 numbers").replace(",", " ").split()
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        raise _unusable(path, "3x3 numbers", "other words") from None
    # NaN fails the comparison as well.
    if len(values) != 9 or not (np.abs(values) <= LARGEST_COEFFICIENT).all():
        found = f"{len(values)} numbers" if len(values) != 9 else "numbers out of range"
        raise _unusable(path, f"3x3 numbers of at most {LARGEST_COEFFICIENT:.0f}", found)
    return values.reshape(3, 3)


def _reference_frame(file: HDRPlusFile) -> int:
    path = file.path.parent / "reference_frame.txt"
    if not path.exists():
        return 0
    text = _read_text(path, "a frame's number").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise _unusable(path, "a frame's number", "something else")
    return int(text)


def _read_text(path: Path, expected: str) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_TEXT_BYTES + 1)
    except OSError as error:
        raise _unusable(path, expected, reason(error)) from error
    if len(content) > MOST_TEXT_BYTES:
        raise _unusable(path, expected, f"more than {MOST_TEXT_BYTES} bytes")
    return content.decode("ascii", "replace")


def _read_shading_map(path: Path) -> Float32[np.ndarray, "_ _ 4"]:
    expected = "float gains of R, Gr, Gb, B, such as 13x17x4"
    try:
        gains = _decode_shading_map(path)
    # tifffile raises many kinds on damaged data, struct.error among them.
    except Exception as error:
        raise _unusable(path, expected, reason(error)) from error
    if gains.ndim != 3 or gains.shape[2] != 4 or min(gains.shape) < 2 or gains.dtype.kind != "f":
        shape = "x".join(str(size) for size in gains.shape)
        # Some maps were first published with three channels.
        raise _unusable(path, expected, f"{gains.dtype} of {shape}")
    if not ((gains > 0) & (gains <= LARGEST_GAIN)).all():
        raise _unusable(path, f"gains above 0, at most {LARGEST_GAIN:.0f}", "others")
    return gains.astype(np.float32)


def _decode_shading_map(path: Path) -> Shaped[np.ndarray, ...]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        check_page(page, path, most_bytes=MOST_MAP_BYTES)
        gains: np.ndarray[Any, Any] = page.asarray()
        return gains.transpose(1, 2, 0) if page.axes == "SYX" else gains


def _unusable(path: Path, expected: str, found: str) -> ImageError:
    return ImageError(
        f"expected {expected} in {path}, found {found}: "
        "download the file again, or leave the burst out"
    )
