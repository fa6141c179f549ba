"""Files of samples alone: MIPI RAW10 and RAW12, 16 and 8 bits a sample, rows at a stride."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16

from quantisp.cfa.raw.bounds import check_size, file_size
from quantisp.cfa.raw.options import Packing, RawOptions, assemble, check_codes
from quantisp.cfa.raw.packed import RAW10, RAW12, pack_rows, unpack_rows
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, SettingError

__all__ = ["encode_headless", "read_headless"]

PACKED = {"raw10": RAW10, "raw12": RAW12}
FIXED_BITS = {"raw10": 10, "raw12": 12, "plain8": 8}


def read_headless(path: Path, options: RawOptions) -> RawImage:
    """Read a file without a header; 16-bit samples at the low end stay on disk, mapped.

    Args:
        path: rows from the top, samples from the left, 16-bit ones little-endian.
        options: with width, height, packing and pattern, and bits for 16-bit samples.

    Raises:
        SettingError: something is missing, or does not fit.
        ImageError: the file does not have the size that this makes, or codes beyond the bits.
    """
    width, height, packing = options.width, options.height, options.packing
    if width is None or height is None or packing is None:
        missing = [f"--{n}" for n in ("width", "height", "packing") if n not in options.given()]
        raise SettingError(
            f"expected width, height and packing of {path}, which has no header, found no "
            f"{', '.join(missing)}: give them, or write {path.name}.json beside it"
        )
    bits = _bits(packing, options.bits, path)
    row_bytes = _row_bytes(packing, width)
    stride = row_bytes if options.stride is None else options.stride
    _check_length(path, height, row_bytes, stride, packing)
    check_size(path, width, height, stored_bytes=file_size(path))
    # Strided over the mapped bytes: a row's padding, if any, is never read.
    contents = np.memmap(path, dtype=np.uint8, mode="r")
    rows = np.lib.stride_tricks.as_strided(
        contents, (height, row_bytes), (stride, 1), writeable=False
    )
    codes = _decode(rows, width, bits, packing, path)
    described = RawOptions(bits=bits).over(options)
    return assemble(codes, described, path)


def encode_headless(
    codes: UInt16[np.ndarray, "h w"], *, packing: Packing, bits: int, stride: int | None = None
) -> bytes:
    """The bytes of a file without a header; the padding of rows is zeros.

    Raises:
        SettingError: the stride is shorter than a row, or the codes do not fit the packing.
    """
    height = len(codes)
    _bits(packing, bits, Path("the capture"))
    check_codes(codes, bits, Path("the capture"))
    if packing in PACKED:
        rows = pack_rows(codes, PACKED[packing])
    elif packing == "plain8":
        rows = codes.astype(np.uint8)
    else:
        shift = 16 - bits if packing == "plain16-msb" else 0
        rows = np.ascontiguousarray((codes << shift).astype("<u2")).view(np.uint8)
    row_bytes = rows.shape[1]
    if stride is None or stride == row_bytes:
        return rows.tobytes()
    _check_stride(stride, row_bytes, packing)
    padded = np.zeros((height, stride), dtype=np.uint8)
    padded[:, :row_bytes] = rows
    return padded.tobytes()


def _decode(
    rows: UInt8[np.ndarray, "h bytes"],
    width: int,
    bits: int,
    packing: Packing,
    path: Path,
) -> UInt16[np.ndarray, "h w"]:
    if packing in PACKED:
        return unpack_rows(rows, width, PACKED[packing])
    if packing == "plain8":
        return rows.astype(np.uint16)
    codes = rows.view("<u2")
    if packing == "plain16":
        return codes.astype(np.uint16, copy=False)
    shift = 16 - bits
    if bool((codes & ((1 << shift) - 1)).any()):
        raise ImageError(
            f"expected {bits} bits at the high end of 16 in {path}, found others below them: "
            "correct the bits, or take --packing plain16"
        )
    return (codes >> shift).astype(np.uint16, copy=False)


def _bits(packing: Packing, bits: int | None, path: Path) -> int:
    fixed = FIXED_BITS.get(packing)
    if fixed is None and bits is None:
        raise SettingError(f"expected the bits of {path}, found none for {packing}: give --bits")
    # Eight bits may hold fewer; the packed formats are of their width.
    most_or_all = range(1, 9) if packing == "plain8" else (fixed,)
    if fixed is not None and bits is not None and bits not in most_or_all:
        raise SettingError(
            f"expected {fixed} bits for {packing}, found {bits}: correct --bits or --packing"
        )
    return bits or fixed or 16


def _row_bytes(packing: Packing, width: int) -> int:
    if packing in PACKED:
        return PACKED[packing].row_bytes(width)
    return width if packing == "plain8" else 2 * width


def _check_stride(stride: int, row_bytes: int, packing: Packing) -> None:
    if stride < row_bytes:
        raise SettingError(
            f"expected a stride of at least {row_bytes} bytes for this width in {packing}, found "
            f"{stride}: correct --stride, --width or --packing"
        )


def _check_length(path: Path, height: int, row_bytes: int, stride: int, packing: Packing) -> None:
    _check_stride(stride, row_bytes, packing)
    size = file_size(path)
    # The last row may lack its padding.
    if size not in (stride * height, stride * (height - 1) + row_bytes):
        raise ImageError(
            f"expected {stride * height} bytes in {path} ({height} rows of {stride} bytes, "
            f"{packing}), found {size}: correct --width, --height, --packing or --stride"
        )
