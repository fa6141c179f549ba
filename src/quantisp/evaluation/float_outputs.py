"""The float network's outputs, kept on disk while a study runs."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.files import make_folder, write_atomically

__all__ = ["FloatOutputs"]


class FloatOutputs:
    """One file a picture, so that a study holds one picture in memory, however many there are.

    Args:
        folder: of the study.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".float"

    def get(self, image_sha256: str) -> Float[Tensor, "1 3 h w"] | None:
        """The output, clipped to [0, 1], or None if it was not kept."""
        path = self._path(image_sha256)
        return torch.from_numpy(np.load(path, allow_pickle=False)) if path.exists() else None

    def keep(self, image_sha256: str, output: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h w"]:
        """Keep an output, and return it clipped to [0, 1].

        Raises:
            OutputError: there is no space.
        """
        clipped = output.clamp(0.0, 1.0)
        content = io.BytesIO()
        np.save(content, clipped.numpy(), allow_pickle=False)
        make_folder(self._folder)
        write_atomically(self._path(image_sha256), content.getvalue())
        return clipped

    def remove(self) -> None:
        """Forget them all."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, image_sha256: str) -> Path:
        return self._folder / f"{image_sha256}.npy"
