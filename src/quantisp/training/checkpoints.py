"""Checkpoints: written whole or not at all, read without unpickling."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import torch

from quantisp.errors import ModelError, OutputError
from quantisp.files import write_atomically

__all__ = [
    "CHECKPOINT_NAME",
    "START_NAME",
    "check_run_folder",
    "read_checkpoint",
    "write_checkpoint",
]

CHECKPOINT_NAME = "checkpoint.pt"
# Where a run that begins with minutes of other work keeps what came of it.
START_NAME = "start.safetensors"
# What a run leaves that was killed before its first checkpoint.
BEFORE_A_CHECKPOINT = frozenset({"cache", "tensorboard", START_NAME})


def check_run_folder(folder: Path, *, resume: bool) -> None:
    """Find out, before anything is read or written, whether a run may begin or go on in ``folder``.

    Raises:
        OutputError: a file is in its place, or it is not empty and not to be resumed.
        ModelError: there is no checkpoint to go on from.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    found = {name for name in found if not name.endswith(".partial")}
    begun = bool(found & BEFORE_A_CHECKPOINT) and CHECKPOINT_NAME not in found
    if resume and not begun and not (folder / CHECKPOINT_NAME).is_file():
        raise _none_at(folder / CHECKPOINT_NAME)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"expected a folder at {nearest}, found a file: choose another --out")
    if not resume and found - BEFORE_A_CHECKPOINT:
        raise OutputError(
            f"expected a new or empty folder, {folder} holds {min(found)}: "
            "pass --resume to go on with its run, or choose another --out"
        )


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at ``path`` in one step; a kill leaves the old one or the new one.

    Raises:
        OutputError: there is no space.
    """
    content = io.BytesIO()
    torch.save(state, content)
    write_atomically(path, content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ModelError: there is none at ``path``, or it is damaged, or it holds more than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise _none_at(path) from None
    # torch.load raises its unpickler's own kinds, RuntimeError, EOFError and KeyError among them.
    except Exception as error:
        raise ModelError(
            f"expected a checkpoint of quantisp, {path} cannot be read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "remove it and start without --resume"
        ) from error
    if not isinstance(state, dict):
        raise ModelError(
            f"expected a checkpoint of quantisp, {path} holds a {type(state).__name__}: "
            "remove it and start without --resume"
        )
    return cast("dict[str, Any]", state)


def _none_at(path: Path) -> ModelError:
    return ModelError(f"expected a checkpoint at {path}, found none: start without --resume")
