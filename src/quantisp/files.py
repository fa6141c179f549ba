"""Files that are written whole, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

from quantisp.errors import OutputError

__all__ = ["cannot_write", "check_replaceable", "make_folder", "write_atomically", "write_folder"]

Result = TypeVar("Result")

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


def check_replaceable(folder: Path, marker: str) -> None:
    """Refuse a folder that is not ours to replace.

    Args:
        folder: one that is not there, is empty, or holds a file called ``marker`` is ours.
        marker: the file that every folder of a kind has.

    Raises:
        OutputError: anything else is there, or a file is in the way.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file()
    if foreign or not nearest.is_dir():
        raise OutputError(
            f"expected a new folder, or one with a {marker} to replace, as --out, found {folder}: "
            "choose another name"
        )


def write_folder(folder: Path, marker: str, fill: Callable[[Path], Result]) -> Result:
    """Write a folder whole, or not at all: ``fill`` writes beside it, and it is moved when done.

    What a kill left beside it is removed when the same folder is written again.

    Args:
        folder: made; an earlier one of the kind is replaced.
        marker: the file that every folder of the kind has; ``fill`` writes it.
        fill: writes into the folder that it is given; what it raises leaves things as they were.

    Raises:
        OutputError: the place is taken by something else, full, or closed to us.
    """
    check_replaceable(folder, marker)
    folder = folder.resolve()
    make_folder(folder.parent)
    # A digest, for the name itself may already be as long as names can be.
    stem = f".quantisp-{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:16]}"
    _remove_left_behind(folder, stem)
    unique = f"{stem}-{secrets.token_hex(4)}"
    partial, old = (folder.with_name(f"{unique}.{kind}") for kind in ("partial", "old"))
    try:
        partial.mkdir()
        with _locked(partial):
            result = fill(partial)
            if folder.is_dir():
                folder.rename(old)
            partial.rename(folder)
    except OSError as error:
        if old.is_dir() and not folder.exists():
            old.rename(folder)
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return result


def _remove_left_behind(folder: Path, stem: str) -> None:
    """What was written for this folder by a process that was killed; who lives holds a lock."""
    kinds = ("partial", "old") if folder.is_dir() else ("partial",)
    for path in (found for kind in kinds for found in folder.parent.glob(f"{stem}-*.{kind}")):
        with contextlib.suppress(OSError), _locked(path):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Hold a folder's lock, under whatever name it comes to have; OSError if another has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


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
