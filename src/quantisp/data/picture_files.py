"""Writing RGB pictures: PNG and TIFF with 16 bits a sample, JPEG with 8."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16

from quantisp.errors import SettingError
from quantisp.files import write_atomically

__all__ = ["PICTURE_FORMATS", "bits_of", "upright", "write_picture"]

BITS = {"png": 16, "tiff": 16, "jpeg": 8}
PICTURE_FORMATS = tuple(BITS)
JPEG_QUALITY = 95
# Enough for photographs; more takes several times as long for a few percent.
PNG_LEVEL = 3

Samples = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]
# Rows and columns may be swapped.
Turned = UInt8[np.ndarray, "h2 w2 3"] | UInt16[np.ndarray, "h2 w2 3"]


def bits_of(kind: str) -> int:
    """Bits a sample that pictures of a format (one of ``PICTURE_FORMATS``) have here."""
    return BITS[kind]


def write_picture(path: Path, samples: Samples, kind: str) -> None:
    """Write a picture whole, or not at all.

    Args:
        path: of the file.
        samples: uint16 for PNG and TIFF, uint8 for JPEG.
        kind: the format.

    Raises:
        SettingError: samples of another depth.
        OutputError: the place cannot be written to.
    """
    if samples.dtype.itemsize * 8 != BITS[kind]:
        raise SettingError(
            f"expected {BITS[kind]} bits a sample for {kind}, found {samples.dtype}: convert them"
        )
    write_atomically(path, _encode(np.ascontiguousarray(samples), kind))


def _encode(samples: Samples, kind: str) -> bytes:
    import imagecodecs

    if kind == "png":
        return bytes(imagecodecs.png_encode(samples, level=PNG_LEVEL))
    if kind == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(samples, level=JPEG_QUALITY, subsampling="444"))
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, samples, photometric="rgb", metadata=None)
    return stream.getvalue()


def upright(samples: Samples, orientation: int) -> Turned:
    """A view with TIFF's and EXIF's orientation undone: 1 is upright, 5 to 8 swap the axes."""
    if orientation in (5, 6, 7, 8):
        samples = samples.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
