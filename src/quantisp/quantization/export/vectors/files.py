"""Tensors of integers as ``.npy`` and as hexadecimal text, and back.

A hexadecimal file has one number a line, in the order of the ``.npy`` file's values (the last axis
fastest): two's complement of the stated width in so many digits, as ``$readmemh`` reads it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from quantisp.errors import RunError

__all__ = ["read_tensor", "write_tensor"]

Entry = dict[str, Any]
DTYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64)


def write_tensor(
    folder: Path, name: str, values: Int[Tensor, ...], *, bits: int, signed: bool
) -> Entry:
    """Write a tensor in both forms.

    Args:
        folder: of the whole export.
        name: of the files in it, without ending; may have folders in it.
        values: within the width.
        bits: 1 to 64.
        signed: two's complement; else from 0 on.

    Returns:
        What the manifest says of it.
    """
    array = values.to(torch.int64).contiguous().numpy()
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
        raise RunError(f"expected {name} in {bits} bits, found {array.min()} to {array.max()}")
    dtype = next(d for d in DTYPES if np.iinfo(d).min <= low and high <= np.iinfo(d).max)
    stream = io.BytesIO()
    np.save(stream, array.astype(dtype), allow_pickle=False)
    digits = -(-bits // 4)
    mask = np.uint64((1 << bits) - 1)
    text = "".join(f"{v:0{digits}x}\n" for v in (array.ravel().view(np.uint64) & mask).tolist())
    entry: Entry = {"shape": list(array.shape), "bits": bits, "signed": signed}
    for kind, content in (("npy", stream.getvalue()), ("hex", text.encode())):
        path = folder / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        entry[kind] = f"{name}.{kind}"
        entry[f"{kind}_sha256"] = hashlib.sha256(content).hexdigest()
    return entry


def read_tensor(folder: Path, entry: Mapping[str, Any]) -> Int[Tensor, ...]:
    """The values of both files, as int64.

    Raises:
        RunError: a file is not what its digest says, or the two differ.
    """
    contents: dict[str, bytes] = {}
    for kind in ("npy", "hex"):
        contents[kind] = (folder / entry[kind]).read_bytes()
        if hashlib.sha256(contents[kind]).hexdigest() != entry[f"{kind}_sha256"]:
            raise RunError(f"expected {entry[kind]} as it was written, found other bytes")
    array = np.load(io.BytesIO(contents["npy"]), allow_pickle=False).astype(np.int64)
    numbers = np.array([int(line, 16) for line in contents["hex"].split()], dtype=np.uint64)
    bits = entry["bits"]
    sign = np.uint64(1 << (bits - 1) if entry["signed"] else 0)
    # From two's complement of so many bits to that of 64.
    signed = ((numbers ^ sign) - sign).view(np.int64)
    if list(array.shape) != entry["shape"] or not np.array_equal(array.ravel(), signed):
        raise RunError(f"expected {entry['hex']} to hold the values of {entry['npy']}")
    return torch.from_numpy(array)
