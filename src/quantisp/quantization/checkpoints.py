"""Parts of a long rounding that are done, kept on disk, so that a killed one goes on from there.

A rounding is a chain of parts, each of which follows from those before it: the same parts give the
same codes, whether they were computed or read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from quantisp.errors import QuantispError
from quantisp.files import make_folder, write_atomically
from quantisp.quantization.affine import QuantizedWeight

__all__ = ["Checkpoints", "weight_from", "weight_tensors"]

IDENTITY = "rounding.txt"
STRIDES = "strides"


@dataclass(frozen=True)
class Checkpoints:
    """Named tensors of one rounding, a file for each part; made when the first is kept.

    Args:
        folder: of this rounding alone; None keeps nothing.
        identity: all that the rounding depends on, as a text. What another one left in the folder
            is not looked at, and goes when this one keeps something.
        prefix: of the names; see :meth:`under`.
    """

    folder: Path | None = None
    identity: str = ""
    prefix: str = ""

    def under(self, name: str) -> Checkpoints:
        """The same, with a part of the rounding for itself."""
        return Checkpoints(self.folder, self.identity, f"{self.prefix}{name}/")

    def get(self, name: str) -> dict[str, Tensor] | None:
        """What was kept as ``name``; None if nothing was, or it is damaged."""
        if self.folder is None or not self._is_ours(self.folder):
            return None
        try:
            with safe_open(self._path(self.folder, name), framework="pt") as file:
                strides: dict[str, list[int]] = json.loads((file.metadata() or {})[STRIDES])
                names: list[str] = file.keys()
                return {key: _laid_out(file.get_tensor(key), strides.get(key)) for key in names}
        except (OSError, ValueError, KeyError, SafetensorError):
            return None

    def put(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep these; they survive a kill from here on.

        Raises:
            OutputError: there is no space.
        """
        if self.folder is None:
            return
        if not self._is_ours(self.folder):
            self.remove()
            make_folder(self.folder)
            write_atomically(self.folder / IDENTITY, self._identity().encode())
        values = {key: value.detach().cpu() for key, value in tensors.items()}
        strides = {key: v.stride() for key, v in values.items() if not v.is_contiguous()}
        content = {
            key: value.clone(memory_format=torch.contiguous_format) for key, value in values.items()
        }
        write_atomically(
            self._path(self.folder, name), save(content, {STRIDES: json.dumps(strides)})
        )

    def remembered(
        self, name: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """What was kept as ``name``; else what ``compute`` gives, which is kept."""
        found: Mapping[str, Tensor] | None = self.get(name)
        if found is None:
            found = compute()
            self.put(name, found)
        return found

    def get_weight(self, name: str) -> tuple[QuantizedWeight, Tensor | None] | None:
        """A layer's codes and its new bias, if it has one."""
        kept = self.get(name)
        return None if kept is None else (weight_from(kept), kept.get("bias"))

    def put_weight(self, name: str, weight: QuantizedWeight, bias: Tensor | None) -> None:
        """Keep a layer's codes and its new bias.

        Raises:
            OutputError: there is no space.
        """
        tensors = weight_tensors(weight)
        self.put(name, tensors if bias is None else {**tensors, "bias": bias})

    @contextlib.contextmanager
    def until_done(self) -> Generator[None]:
        """Forget all of them at the end, or where it failed as it would again; not after a kill."""
        try:
            yield
        except QuantispError:
            self.remove()
            raise
        self.remove()

    def remove(self) -> None:
        """Forget all of them."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ours(self, folder: Path) -> bool:
        try:
            return (folder / IDENTITY).read_text() == self._identity()
        except (OSError, ValueError):
            return False

    def _identity(self) -> str:
        return f"torch {torch.__version__}: {self.identity}"

    def _path(self, folder: Path, name: str) -> Path:
        # Names of layers may hold anything.
        digest = hashlib.sha256(f"{self.prefix}{name}".encode()).hexdigest()
        return folder / f"{digest[:32]}.safetensors"


def weight_tensors(weight: QuantizedWeight) -> dict[str, Tensor]:
    """All that a weight is made of; ``weight_from`` reads it."""
    axis = -1 if weight.axis is None else weight.axis
    return {
        "codes": weight.codes,
        "scale": weight.scale,
        "axis": torch.tensor([axis, weight.groups]),
    }


def weight_from(tensors: Mapping[str, Tensor], prefix: str = "") -> QuantizedWeight:
    """The weight of ``weight_tensors``, whose names begin with ``prefix``."""
    axis, groups = tensors[f"{prefix}axis"].tolist()
    return QuantizedWeight(
        codes=tensors[f"{prefix}codes"],
        scale=tensors[f"{prefix}scale"],
        axis=None if axis < 0 else axis,
        groups=groups,
    )


def _laid_out(value: Tensor, strides: list[int] | None) -> Tensor:
    """As it lay in memory, on which the order of sums depends, and with it the last bits."""
    if strides is None:
        return value
    return torch.empty_strided(value.shape, strides, dtype=value.dtype).copy_(value)
