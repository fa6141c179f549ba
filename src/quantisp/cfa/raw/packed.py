"""MIPI RAW10 and RAW12: samples packed into bytes, rows at a stride.

Source: MIPI Alliance, Camera Serial Interface 2, sections on RAW10 and RAW12: four bytes with the
upper 8 bits of four samples, then one byte with their lower 2 bits, the first sample's in bits 1:0;
two bytes with the upper 8 bits of two samples, then one with their lower 4, the first in bits 3:0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt16

__all__ = ["RAW10", "RAW12", "PackedFormat", "pack_rows", "unpack_rows"]

ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class PackedFormat:
    """Groups of samples, each with a byte for their low bits.

    Args:
        bits: of a sample, 8 of them in its own byte.
        samples: that share a byte for the others.
    """

    bits: int
    samples: int

    def row_bytes(self, width: int) -> int:
        """Of a row of so many samples, the last group filled up."""
        return -(-width // self.samples) * (self.samples + 1)


RAW10 = PackedFormat(bits=10, samples=4)
RAW12 = PackedFormat(bits=12, samples=2)


def unpack_rows(
    rows: UInt8[np.ndarray, "h bytes"], width: int, layout: PackedFormat
) -> UInt16[np.ndarray, "h width"]:
    """The samples of rows of ``layout.row_bytes(width)`` bytes."""
    low_bits = layout.bits - 8
    groups = rows.shape[1] // (layout.samples + 1)
    codes = np.empty((rows.shape[0], width), dtype=np.uint16)
    for top in range(0, rows.shape[0], ROWS_AT_ONCE):
        some = rows[top : top + ROWS_AT_ONCE].reshape(-1, groups, layout.samples + 1)
        shared = some[:, :, layout.samples].astype(np.uint16)
        for sample in range(layout.samples):
            low = (shared >> (sample * low_bits)) & ((1 << low_bits) - 1)
            wanted = codes[top : top + ROWS_AT_ONCE, sample :: layout.samples]
            high = some[:, :, sample].astype(np.uint16) << low_bits
            wanted[:] = (high | low)[:, : wanted.shape[1]]
    return codes


def pack_rows(
    codes: UInt16[np.ndarray, "h width"], layout: PackedFormat
) -> UInt8[np.ndarray, "h bytes"]:
    """The bytes of rows of samples, each below ``2**layout.bits``; the last group ends in zeros."""
    low_bits = layout.bits - 8
    height, width = codes.shape
    groups = -(-width // layout.samples)
    whole = np.zeros((height, groups * layout.samples), dtype=np.uint16)
    whole[:, :width] = codes
    grouped = whole.reshape(height, groups, layout.samples)
    packed = np.zeros((height, groups, layout.samples + 1), dtype=np.uint8)
    packed[:, :, : layout.samples] = grouped >> low_bits
    for sample in range(layout.samples):
        low = grouped[:, :, sample] & ((1 << low_bits) - 1)
        packed[:, :, layout.samples] |= (low << (sample * low_bits)).astype(np.uint8)
    return packed.reshape(height, -1)
