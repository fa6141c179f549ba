"""What stands for PyTorch's values while a graph is lowered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["Call", "Constant", "Tiled", "Value", "Zeros", "as_number", "as_tile"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """A parameter or buffer by its name, or something computed from them, without one."""

    tensor: Tensor
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiled:
    """A constant (c, h, w) that repeats over the whole picture."""

    tile: Tensor


@dataclass(frozen=True)
class Zeros:
    """A tensor of nothing but zeros."""


# A text is the name of a node.
Value = str | Constant | Tiled | Zeros | list[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One of PyTorch's operations.

    Args:
        name: of its result.
        target: its name, such as ``aten.conv2d.default``.
        arguments: by name, values in place of nodes.
        nodes: PyTorch's nodes among them.
        result: what torch.export knows of the result: a tensor without data, or a size.
        module: the path of the module that does it.
    """

    name: str
    target: str
    arguments: Mapping[str, Any]
    nodes: Mapping[str, fx.Node]
    result: Any
    module: str

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def is_size(self) -> bool:
        """Whether it computes a size and no tensor."""
        return isinstance(self.result, int | torch.SymInt)


def as_number(value: Any) -> float | None:
    """A number, or a constant of one element; None for anything else."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Constant) and value.tensor.numel() == 1:
        return float(value.tensor)
    return None


def as_tile(value: Any) -> Tensor | None:
    """A constant of zeros and ones as (c, h, w); None for anything else."""
    if isinstance(value, Tiled):
        return value.tile
    if not isinstance(value, Constant) or not 2 <= value.tensor.ndim <= 4:
        return None
    tensor = value.tensor
    binary = bool(((tensor == 0) | (tensor == 1)).all())
    shape = (1,) * (4 - tensor.ndim) + tuple(tensor.shape)
    if not binary or shape[0] != 1:
        return None
    return tensor.detach().float().reshape(shape[1:])
