"""Loops over codes, compiled by numba: everything between two convolutions, in one pass each.

All arithmetic is that of int64. The functions take the memory of tensors: flat, or with one row for
each pixel and one column for each channel. They are compiled for each type of their arguments when
first called, and kept on disk by numba.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch

__all__ = ["add", "in_parts", "look_up", "multiply", "rescale", "split"]

# Smaller ones are not worth a thread of their own.
LEAST_ROWS = 4096


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Without what the tests wrap around every function of the package.
    plain = inspect.unwrap(function)
    return numba.njit(nogil=True, cache=True, error_model="numpy")(plain)


def _rescale(
    parts: Any,
    weighing: Any,
    bias: Any,
    sign: Any,
    multiplier: Any,
    shift: Any,
    even: Any,
    least: Any,
    greatest: Any,
    wrap: Any,
    low: Any,
    high: Any,
    out: Any,
) -> Any:
    """Sums of parts to codes; returns how many sums did not fit the accumulator."""
    rows, channels = out.shape
    total = np.empty(channels, np.int64)
    outside = 0
    for row in range(rows):
        for channel in range(channels):
            total[channel] = 0
        for index, part in enumerate(parts):
            by = weighing[index]
            for channel in range(channels):
                total[channel] += np.int64(part[row, channel]) << by
        for channel in range(channels):
            exact = total[channel] * sign[channel] + bias[channel]
            kept = min(max(exact, least), greatest)
            outside += np.int64(kept != exact)
            scaled = ((kept << wrap) >> wrap) * multiplier[channel]
            by = shift[channel]
            half = np.int64(1) << (by - 1)
            rounded = (scaled + half) >> by
            tie = np.int64((scaled & ((np.int64(1) << by) - 1)) == half)
            rounded -= even & tie & rounded
            out[row, channel] = min(max(rounded, low), high)
    return outside


def _add(
    a: Any, b: Any, first: Any, second: Any, shift: Any, even: Any, low: Any, high: Any, out: Any
) -> None:
    half = np.int64(1) << (shift - 1)
    mask = (np.int64(1) << shift) - 1
    for index in range(out.size):
        scaled = np.int64(a[index]) * first + np.int64(b[index]) * second
        rounded = (scaled + half) >> shift
        rounded -= even & np.int64((scaled & mask) == half) & rounded
        out[index] = min(max(rounded, low), high)


def _multiply(
    a: Any, b: Any, multiplier: Any, shift: Any, even: Any, low: Any, high: Any, out: Any
) -> None:
    half = np.int64(1) << (shift - 1)
    mask = (np.int64(1) << shift) - 1
    for index in range(out.size):
        scaled = np.int64(a[index]) * np.int64(b[index]) * multiplier
        rounded = (scaled + half) >> shift
        rounded -= even & np.int64((scaled & mask) == half) & rounded
        out[index] = min(max(rounded, low), high)


def _look_up(x: Any, table: Any, low: Any, out: Any) -> None:
    for index in range(out.size):
        out[index] = table[np.int64(x[index]) - low]


def _split(x: Any, offset: Any, below: Any, above: Any) -> None:
    """The lowest eight bits, and the rest plus an offset."""
    for index in range(x.size):
        value = np.int64(x[index])
        below[index] = value & 255
        above[index] = (value >> 8) + offset


rescale = _compiled(_rescale)
add = _compiled(_add)
multiply = _compiled(_multiply)
look_up = _compiled(_look_up)
split = _compiled(_split)


def in_parts(rows: int, work: Callable[[slice], Any]) -> list[Any]:
    """Do some rows at a time, with as many threads as PyTorch has; the results in order."""
    threads = min(torch.get_num_threads(), max(rows // LEAST_ROWS, 1))
    if threads == 1:
        return [work(slice(0, rows))]
    ends = [rows * part // threads for part in range(threads + 1)]
    slices = [slice(*pair) for pair in pairwise(ends)]
    return list(_pool(threads).map(work, slices))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
