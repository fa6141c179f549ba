"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from quantisp.errors import OutputError

__all__ = ["write_atomically"]

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
        cure = "free some space, or choose" if error.errno in _FULL else "choose"
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}): {cure} another place"
        ) from error
    finally:
        # Where the folder itself is the trouble, so is this; the first error is the one to tell.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
