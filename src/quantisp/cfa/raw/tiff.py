"""Grey TIFF with 8 or 16 bits a sample, described by a sidecar; and the planes of TIFF files."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16

from quantisp.cfa.raw.bounds import MOST_PIXELS, check_size, damaged, file_size, reason
from quantisp.cfa.raw.options import RawOptions, assemble
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

__all__ = ["check_page", "encode_tiff", "read_plane", "read_tiff"]

# TIFF's numbers of no compression, LZW, JPEG (lossless too), and the two of deflate.
JPEG = 7
COMPRESSIONS = (1, 5, JPEG, 8, 32946)
JPEG_HEADER_BYTES = 4096
GREY = 1


def read_tiff(path: Path, options: RawOptions) -> RawImage:
    """Read the first page, grey; 16-bit samples that are not compressed stay on disk, mapped.

    Raises:
        ImageError: not grey, damaged, or codes beyond the bits.
    """
    import tifffile

    file_size(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            codes = _read_grey(page, path)
            depth = int(page.bitspersample)
    # tifffile and the codecs raise many kinds on damaged data, struct.error among them.
    except Exception as error:
        raise damaged(path, "a whole grey TIFF of 8 to 16 bits", reason(error)) from error
    if options.bits is None and options.white is None:
        options = RawOptions(bits=depth).over(options)
    return assemble(codes, options, path)


def _read_grey(page: Any, path: Path) -> UInt16[np.ndarray, "h w"]:
    if page.photometric != GREY:
        raise ImageError(f"photometric interpretation {int(page.photometric)}")
    return read_plane(page, path)


def encode_tiff(raw: RawImage) -> bytes:
    """The bytes of a 16-bit file; pattern and levels have no place in it."""
    import tifffile

    stream = io.BytesIO()
    tifffile.imwrite(stream, raw.codes, photometric="minisblack", metadata=None)
    return stream.getvalue()


def read_plane(page: Any, path: Path) -> UInt16[np.ndarray, "h w"]:
    """The samples of a page of one plane, mapped where the file allows it.

    Args:
        page: tifffile's, of the file at ``path``.
        path: of the file.

    Raises:
        ImageError: what was found, for a message to name.
    """
    if page.samplesperpixel != 1 or page.dtype not in (np.uint8, np.uint16) or page.imagedepth != 1:
        raise ImageError(f"{page.samplesperpixel} samples a pixel of {page.dtype}")
    check_page(page, path, most_bytes=2 * MOST_PIXELS)
    height, width = int(page.imagelength), int(page.imagewidth)
    check_size(path, width, height, stored_bytes=sum(page.databytecounts))
    if page.is_memmappable and page.bitspersample == 16 and page.parent.byteorder == "<":
        mapped = np.memmap(
            path, dtype="<u2", mode="r", offset=page.dataoffsets[0], shape=(height, width)
        )
        return mapped.view(np.ndarray).astype(np.uint16, copy=False)
    codes = np.asarray(page.asarray(maxworkers=1))
    if codes.shape != (height, width):
        raise ImageError(f"an array of shape {list(codes.shape)}")
    return codes.astype(np.uint16, copy=False)


def check_page(page: Any, path: Path, *, most_bytes: int) -> None:
    """Refuse a TIFF page whose headers promise more than its file can hold, before it is decoded.

    Args:
        page: tifffile's, of the file at ``path``.
        path: of the file.
        most_bytes: that the decoded page may take.

    Raises:
        ImageError: what was found, for a message to name.
    """
    counts, offsets = page.databytecounts, page.dataoffsets
    chunks = math.prod(page.chunked)
    declared = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample / 8
    decoded = max(page.nbytes, chunks * math.prod(page.chunks) * page.dtype.itemsize)
    if page.nbytes > most_bytes or decoded > 2 * most_bytes:
        raise ImageError(f"a header of {page.imagelength}x{page.imagewidth} px")
    ends = [offset + count for offset, count in zip(offsets, counts, strict=True)]
    # tifffile fills what is not there with zeros.
    if len(ends) != chunks or not ends or min(counts) < 1 or max(ends) > path.stat().st_size:
        raise ImageError("a file that was cut short")
    if page.compression not in COMPRESSIONS:
        raise ImageError(f"compression {int(page.compression)}")
    if page.compression == 1 and declared > sum(counts):
        raise ImageError(
            f"a header of {page.imagelength}x{page.imagewidth} px with {sum(counts)} bytes of data"
        )
    if page.compression == JPEG:
        with path.open("rb") as stream:
            for offset in offsets:
                stream.seek(offset)
                _check_jpeg(stream.read(JPEG_HEADER_BYTES), most_samples=math.prod(page.chunks))


def _check_jpeg(head: bytes, *, most_samples: int) -> None:
    """Refuse a JPEG stream that decodes to more than its place: decoders allocate what it says.

    Source: ITU-T T.81, annex B.
    """
    at = 2
    while at + 10 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(head[at + i : at + i + 2]) for i in (5, 7))
            if height * width * head[at + 9] > most_samples:
                raise ImageError(f"a JPEG header of {height}x{width} px")
            return
        at += 2 + length
    raise ImageError("a JPEG stream without a header")
