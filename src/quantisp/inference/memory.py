"""Keeping freed memory in the process."""

from __future__ import annotations

import contextlib
import ctypes
import functools

__all__ = ["keep_freed_memory", "return_freed_memory"]

# From glibc's malloc.h; other C libraries have no mallopt, or ignore it.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_INT = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Let the next feature map take the memory of the last one; True if the C library agrees.

    A feature map has megabytes. glibc hands such blocks back to the system when they are freed,
    and gets new ones page by page, each zeroed by the kernel when it is first touched, which takes
    as long as the cheap operations themselves. The largest amount of memory that the process holds
    is the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    accepted = [mallopt(M_MMAP_THRESHOLD, LARGEST_INT), mallopt(M_TRIM_THRESHOLD, LARGEST_INT)]
    return all(accepted)


def return_freed_memory() -> None:
    """Hand what was freed back to the system now; where there is no glibc, nothing happens.

    Kept blocks of many sizes leave holes between them; over hundreds of tiles a process would grow
    to twice what it uses. New pages take time, too, so not after each.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
