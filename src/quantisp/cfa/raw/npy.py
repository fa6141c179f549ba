"""NumPy's ``.npy``: one array of codes, described by a sidecar."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from quantisp.cfa.raw.bounds import MOST_PIXELS, check_size, damaged, file_size, reason
from quantisp.cfa.raw.options import RawOptions, assemble
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

__all__ = ["encode_npy", "read_npy"]


def read_npy(path: Path, options: RawOptions) -> RawImage:
    """Read an array (h, w) of uint8 or uint16; uint16 stays on disk, mapped. Nothing is unpickled.

    Raises:
        ImageError: another array, a file that was cut short, or codes beyond the bits.
    """
    size = file_size(path)
    try:
        with warnings.catch_warnings():
            # A header that Python 2 wrote is read as well.
            warnings.simplefilter("ignore", UserWarning)
            stored: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    # numpy raises many kinds on damaged headers, SyntaxError among them.
    except Exception as error:
        raise damaged(path, "an array of NumPy", reason(error)) from error
    if not isinstance(stored, np.memmap) or stored.ndim != 2 or stored.size > MOST_PIXELS:
        shape = list(getattr(stored, "shape", ()))
        raise damaged(path, "one array (height, width)", f"an array of shape {shape}")
    if stored.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ImageError(
            f"expected codes of uint8 or uint16 in {path}, found {stored.dtype}: convert them, "
            "codes.astype('uint16')"
        )
    height, width = stored.shape
    check_size(path, width, height, stored_bytes=size)
    if stored.dtype == np.uint8 and options.bits is None and options.white is None:
        options = RawOptions(bits=8).over(options)
    return assemble(stored.view(np.ndarray).astype(np.uint16, copy=False), options, path)


def encode_npy(raw: RawImage) -> bytes:
    """The bytes of the file; pattern and levels have no place in it."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(raw.codes), allow_pickle=False)
    return stream.getvalue()
