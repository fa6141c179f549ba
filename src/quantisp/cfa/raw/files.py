"""One door for raw files of every format."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from quantisp.cfa.phase import phase_doubt
from quantisp.cfa.raw.bounds import file_size, reason
from quantisp.cfa.raw.camera import CAMERA_SUFFIXES, read_camera_raw
from quantisp.cfa.raw.dng import CFA, read_dng
from quantisp.cfa.raw.dng_writing import encode_dng
from quantisp.cfa.raw.headless import encode_headless, read_headless
from quantisp.cfa.raw.mipi_bin import encode_mipi_bin, read_mipi_bin
from quantisp.cfa.raw.npy import encode_npy, read_npy
from quantisp.cfa.raw.options import GEOMETRY, Packing, RawOptions
from quantisp.cfa.raw.png import encode_png, read_png
from quantisp.cfa.raw.sidecar import describe, read_sidecar, sidecar_path
from quantisp.cfa.raw.tiff import encode_tiff, read_tiff
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, SettingError
from quantisp.files import write_atomically

__all__ = ["RAW_SUFFIXES", "read_raw", "write_dng", "write_headless", "write_raw"]

log = logging.getLogger(__name__)

Reader = Callable[[Path, RawOptions], RawImage]


def _read_tiff_or_mosaic(path: Path, options: RawOptions) -> RawImage:
    """A TIFF with a colour filter array describes itself (TIFF/EP); another has a sidecar."""
    import tifffile

    file_size(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            mosaic = tiff.pages[0].photometric == CFA  # pyright: ignore[reportAttributeAccessIssue]
    # tifffile raises many kinds on damaged data, struct.error among them.
    except Exception as error:
        raise ImageError(
            f"expected a TIFF at {path}, found {reason(error)}: replace the file"
        ) from error
    return read_dng(path, options) if mosaic else read_tiff(path, options)


READERS: dict[str, Reader] = {
    ".dng": read_dng,
    ".npy": read_npy,
    ".png": read_png,
    ".tif": _read_tiff_or_mosaic,
    ".tiff": _read_tiff_or_mosaic,
    ".bin": read_mipi_bin,
    **dict.fromkeys(CAMERA_SUFFIXES, read_camera_raw),
}
# Of files of samples alone, only with width, height and packing.
HEADLESS_SUFFIXES = (".raw", ".raw10", ".raw12", ".raw16", ".raw8")
RAW_SUFFIXES = frozenset({*READERS, *HEADLESS_SUFFIXES})
ENCODERS: dict[str, Callable[[RawImage], bytes]] = {
    ".npy": encode_npy,
    ".png": encode_png,
    ".tif": encode_tiff,
    ".tiff": encode_tiff,
    ".bin": encode_mipi_bin,
}


def read_raw(path: Path, options: RawOptions | None = None) -> RawImage:
    """Read a raw file; its ending says the format.

    A file of samples alone needs width, height and packing, whatever its ending. What ``options``
    says holds before a sidecar (``NAME.json`` beside the file), that before the format's defaults.
    If another phase of the pattern gives a clearly smoother picture, a warning is logged.

    Args:
        path: of the file.
        options: what the file does not say.

    Returns:
        Codes of the visible area; mapped from the disk where the format allows it, and read-only
        then.
    Raises:
        ImageError: missing, damaged, or not of the format; a CFA or level that cannot be.
        SettingError: something has to be said, or the file says it itself.
    """
    path = Path(path)
    file_size(path)
    said = (options or RawOptions()).over(read_sidecar(path))
    raw = _reader(path, said)(path, said)
    doubt = phase_doubt(raw)
    if doubt:
        log.warning("%s: %s", path, doubt)
    return raw


def write_raw(path: Path, raw: RawImage) -> None:
    """Write a capture in the format that the ending says: .dng, .npy, .png, .tif or .bin.

    All but DNG get a sidecar.

    Raises:
        ImageError: the format cannot hold it.
        SettingError: no such format.
        OutputError: the place cannot be written to.
    """
    suffix = path.suffix.lower()
    if suffix == ".dng":
        write_dng(path, raw)
        return
    if suffix not in ENCODERS:
        raise SettingError(
            f"expected a file of .dng, {', '.join(ENCODERS)}, found {path.name!r}: correct its "
            "ending"
        )
    content = ENCODERS[suffix](raw)
    write_atomically(sidecar_path(path), describe(raw))
    write_atomically(path, content)


def write_dng(path: Path, raw: RawImage) -> None:
    """Write a DNG file, whole or not at all.

    Raises:
        ImageError: a CFA that DNG cannot say.
        OutputError: the place cannot be written to.
    """
    write_atomically(path, encode_dng(raw))


def write_headless(
    path: Path, raw: RawImage, *, packing: Packing, stride: int | None = None
) -> None:
    """Write a file of samples alone, and its sidecar.

    Raises:
        ImageError, SettingError: the packing or stride cannot hold it.
        OutputError: the place cannot be written to.
    """
    content = encode_headless(raw.codes, packing=packing, bits=raw.bits, stride=stride)
    height, width = raw.size
    geometry = {"width": width, "height": height, "packing": packing}
    if stride is not None:
        geometry["stride"] = stride
    write_atomically(sidecar_path(path), describe(raw, geometry=geometry))
    write_atomically(path, content)


def _reader(path: Path, said: RawOptions) -> Reader:
    suffix = path.suffix.lower()
    geometry = said.given() & GEOMETRY
    reader = READERS.get(suffix)
    if reader is not None and not geometry:
        return reader
    if reader is not None and suffix != ".bin":
        raise SettingError(
            f"expected {path}, a {suffix} file, to say its own size, found "
            f"{', '.join(sorted(geometry))} given: leave that out"
        )
    if geometry or suffix in HEADLESS_SUFFIXES:
        return read_headless
    raise SettingError(
        f"expected a raw file ({' '.join(sorted(READERS))}) or --width, --height and --packing of "
        f"one without a header, found {path.name!r}: correct the name, or describe the file"
    )
