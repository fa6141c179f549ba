"""A network as a small typed graph: what is computed, and from what; no sizes but those it needs.

A node is one operation and the names of the nodes whose outputs it takes. Layers are named as in
``named_modules`` of the network, whose weights and biases they use, so that plans, codes and scales
apply. A graph captured with dynamic sizes runs at every height and width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "MOVES",
    "Add",
    "Clamp",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Extent",
    "Graph",
    "Input",
    "Linear",
    "Mask",
    "Multiply",
    "Node",
    "Operation",
    "Pad",
    "Permute",
    "PixelShuffle",
    "PixelUnshuffle",
    "Requantize",
    "Resize",
    "Size",
    "Slice",
    "Table",
]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A size that depends on the input's, as a sum of rounded-down linear terms.

    Args:
        text: in ``h`` and ``w``, for people.
        expression: the same as a sympy expression of the symbols ``h`` and ``w``.
    """

    text: str
    expression: object

    def at(self, height: int, width: int) -> int:
        """The size for an input of so many px."""
        values = {"h": height, "w": width}
        expression = cast("Any", self.expression)
        symbols = {symbol: values[symbol.name] for symbol in expression.free_symbols}
        return int(expression.subs(symbols))


Size = int | Extent


@dataclass(frozen=True, kw_only=True)
class Clamp:
    """What a node's result is limited to; ReLU is 0 to infinity."""

    lower: float = -math.inf
    upper: float = math.inf

    def within(self, other: Clamp) -> Clamp:
        """Both limits, the other one last."""
        return Clamp(
            lower=min(max(self.lower, other.lower), other.upper),
            upper=max(min(self.upper, other.upper), other.lower),
        )


@dataclass(frozen=True, kw_only=True)
class Input:
    """The network's input."""


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution with the weight and bias of ``layer``; padded by zeros."""

    layer: str
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    clamp: Clamp = Clamp()


@dataclass(frozen=True, kw_only=True)
class ConvTranspose:
    """A transposed convolution with the weight and bias of ``layer``."""

    layer: str
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    clamp: Clamp = Clamp()


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A matrix product over the last axis with the weight and bias of ``layer``."""

    layer: str
    clamp: Clamp = Clamp()


@dataclass(frozen=True, kw_only=True)
class Add:
    """The first input plus (sign 1) or minus (sign -1) the second."""

    sign: int = 1
    clamp: Clamp = Clamp()


@dataclass(frozen=True, kw_only=True)
class Multiply:
    """The product of two inputs."""

    clamp: Clamp = Clamp()


@dataclass(frozen=True, kw_only=True)
class Table:
    """A function of each value by itself: a name of ``functions.FUNCTIONS``, and its parameters."""

    function: str
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Requantize:
    """The same values on another scale; nothing in float."""


@dataclass(frozen=True, kw_only=True)
class PixelShuffle:
    """Channels to ``factor`` x ``factor`` px."""

    factor: int


@dataclass(frozen=True, kw_only=True)
class PixelUnshuffle:
    """``factor`` x ``factor`` px to channels."""

    factor: int


@dataclass(frozen=True, kw_only=True)
class Concat:
    """All inputs along ``axis``."""

    axis: int


@dataclass(frozen=True, kw_only=True)
class Pad:
    """More px: left, right, top, bottom; of zeros (``constant``), ``reflect`` and so on."""

    amounts: tuple[Size, Size, Size, Size]
    mode: str


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A part along ``axis``; ``stop`` None is the end."""

    axis: int
    start: Size
    stop: Size | None
    step: int = 1


@dataclass(frozen=True, kw_only=True)
class Permute:
    """The axes in another order."""

    axes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Each px becomes ``factors`` equal ones, down and across."""

    factors: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """Times a tile of zeros and ones that repeats over the whole picture.

    Args:
        tile: one channel is for all; an input of one channel becomes as many as the tile has.
    """

    tile: Float[Tensor, "c h w"]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and torch.equal(self.tile, other.tile)

    def __hash__(self) -> int:
        return hash(tuple(self.tile.shape))


Operation = (
    Input
    | Conv
    | ConvTranspose
    | Linear
    | Add
    | Multiply
    | Table
    | Requantize
    | PixelShuffle
    | PixelUnshuffle
    | Concat
    | Pad
    | Slice
    | Permute
    | Resize
    | Mask
)
MOVES = (PixelShuffle, PixelUnshuffle, Concat, Pad, Slice, Permute, Resize, Mask)
"""What moves values, or zeroes some, without computing new ones."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation.

    Args:
        name: of the node, and of the tensor that it gives.
        operation: what it does.
        inputs: the names of the nodes that it takes.
        where: the module and the line of source, for people.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...] = ()
    where: str = ""

    @property
    def layer(self) -> str | None:
        """The layer whose weight it uses, if it uses one."""
        operation = self.operation
        return operation.layer if isinstance(operation, Conv | ConvTranspose | Linear) else None

    @property
    def moves(self) -> bool:
        """Whether its values are those of its inputs."""
        return isinstance(self.operation, MOVES)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network.

    Args:
        nodes: each after its inputs; the first is the ``Input``.
        output: the name of the node whose output is the network's.
        size: the only height and width that it runs at, or None for every one.
        example: the shape of an input that it runs at.
    """

    nodes: tuple[Node, ...]
    output: str
    size: tuple[int, int] | None = None
    example: tuple[int, ...] = ()

    def node(self, name: str) -> Node:
        """The node of that name."""
        return self.by_name()[name]

    def by_name(self) -> Mapping[str, Node]:
        """Every node by its name."""
        return {node.name: node for node in self.nodes}

    def users(self) -> Mapping[str, tuple[str, ...]]:
        """For each node the nodes that take its output."""
        users: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                users[name].append(node.name)
        return {name: tuple(found) for name, found in users.items()}

    def last_uses(self) -> Mapping[str, tuple[str, ...]]:
        """For each node the tensors that nobody needs after it."""
        last: dict[str, str] = {}
        for node in self.nodes:
            last |= dict.fromkeys(node.inputs, node.name)
        last.pop(self.output, None)
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for name, user in last.items():
            found[user].append(name)
        return {name: tuple(names) for name, names in found.items()}

    def __str__(self) -> str:
        return "\n".join(
            f"{node.name} = {node.operation}({', '.join(node.inputs)})" for node in self.nodes
        )
