"""Grey PNG with 8 or 16 bits a sample, described by a sidecar."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from quantisp.cfa.raw.bounds import check_size, damaged, file_size, reason
from quantisp.cfa.raw.options import RawOptions, assemble
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

__all__ = ["encode_png", "read_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
HEADER = struct.Struct(">IIBB")
GREY = 0


def read_png(path: Path, options: RawOptions) -> RawImage:
    """Read one; the levels of a 16-bit file are its codes, whatever its gamma says.

    Raises:
        ImageError: not grey, damaged, or codes beyond the bits.
    """
    import imagecodecs

    size = file_size(path)
    with path.open("rb") as stream:
        head = stream.read(len(SIGNATURE) + HEADER.size)
    if len(head) < len(SIGNATURE) + HEADER.size or not head.startswith(SIGNATURE):
        raise damaged(path, "a PNG", "something else")
    width, height, depth, colour = HEADER.unpack(head[len(SIGNATURE) :])
    if colour != GREY or depth not in (8, 16):
        raise ImageError(
            f"expected a grey PNG of 8 or 16 bits in {path}, found colour type {colour} with "
            f"{depth} bits: convert it to 16-bit grey, without changing its values, or make a "
            "capture of a photograph with quantisp simulate"
        )
    check_size(path, width, height, stored_bytes=size)
    try:
        codes: np.ndarray[Any, Any] = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    # The decoder raises its own kinds on damaged data.
    except Exception as error:
        raise damaged(path, "a whole PNG", reason(error)) from error
    # A grey level that stands for transparency makes a second channel.
    if codes.ndim == 3 and codes.shape[2] == 2:
        codes = codes[:, :, 0]
    if codes.shape != (height, width):
        raise damaged(path, f"{height}x{width} px", str(list(codes.shape)))
    if depth == 8 and options.bits is None and options.white is None:
        options = RawOptions(bits=8).over(options)
    return assemble(np.ascontiguousarray(codes, dtype=np.uint16), options, path)


def encode_png(raw: RawImage) -> bytes:
    """The bytes of a 16-bit file; pattern and levels have no place in it."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(raw.codes)))
