"""Checkpoints: written whole or not at all, read without unpickling."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from quantisp.errors import ModelError

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at ``path`` in one step; a kill leaves the old one or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ModelError: there is none at ``path``, or it is damaged, or it holds more than tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(
            f"expected a checkpoint at {path}, found none: start without --resume"
        ) from None
    # torch.load raises its unpickler's own kinds, RuntimeError, EOFError and KeyError among them.
    except Exception as error:
        raise ModelError(
            f"expected a checkpoint of quantisp, {path} cannot be read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
            "remove it and start without --resume"
        ) from error
