"""The ``.bin`` of the MIPI challenges: width and height, then the samples, all uint16.

Source: Yang et al., "MIPI 2022 challenge on RGBW sensor re-mosaic", ECCVW 2022, and its data:
10-bit RGBW mosaics, black 64, white 1023.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw.bounds import check_size, damaged, file_size
from quantisp.cfa.raw.options import RawOptions, assemble
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

__all__ = ["encode_mipi_bin", "read_mipi_bin"]

HEADER = struct.Struct("<HH")


def read_mipi_bin(path: Path, options: RawOptions) -> RawImage:
    """Read one; the samples stay on disk, mapped.

    Args:
        path: little-endian.
        options: pattern, bits and levels where they are others than the challenge's.

    Raises:
        ImageError: the file's length is not what its header makes, or codes are beyond the bits.
    """
    size = file_size(path)
    with path.open("rb") as stream:
        head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        raise damaged(path, "width and height", f"{len(head)} bytes")
    width, height = HEADER.unpack(head)
    if size != HEADER.size + 2 * width * height:
        raise damaged(
            path,
            f"{HEADER.size + 2 * width * height} bytes (its header says {height}x{width} px)",
            str(size),
        )
    check_size(path, width, height, stored_bytes=size)
    codes = np.memmap(path, dtype="<u2", mode="r", offset=HEADER.size, shape=(height, width))
    challenge = RawOptions(
        pattern=CFAPattern.named("rgbw-mipi"), bits=10, black=(64.0,), white=1023.0
    )
    return assemble(
        codes.view(np.ndarray).astype(np.uint16, copy=False), options.over(challenge), path
    )


def encode_mipi_bin(raw: RawImage) -> bytes:
    """The bytes of the file; pattern and levels have no place in it.

    Raises:
        ImageError: a side is longer than 65535 px.
    """
    height, width = raw.size
    if max(height, width) > 0xFFFF:
        raise ImageError(
            f"expected sides of at most 65535 px for a .bin, found {height}x{width}: write another "
            "format"
        )
    return HEADER.pack(width, height) + raw.codes.astype("<u2", copy=False).tobytes()
