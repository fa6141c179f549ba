"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from quantisp.errors import OutputError

__all__ = ["cannot_write", "make_folder", "write_atomically"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` in one step; a failure or a kill leaves what was there before.

    Raises:
        OutputError: the folder is missing, full or closed to us, or ``path`` is a folder.
    """
    # A fresh name, not one made from path's: that could be too long, or another thread's.
    partial = path.with_name(f".quantisp-{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # Where the folder itself is the trouble, so is this; the first error is the one to tell.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are not there.

    Raises:
        OutputError: it cannot be made, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The one line for a place that cannot be written to."""
    cure = "free some space, or choose" if error.errno in _FULL else "choose"
    return OutputError(f"cannot write {path} ({error.strerror or error}): {cure} another place")
