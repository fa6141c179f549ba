"""A network in integers: the captured graph, and beside each node the integers that it works with.

The graph is that of ``quantization.graph``, but for limits, which are integers here (``low`` and
``high`` of each tensor). What a node does to integers is written down in ``docs/arithmetic.md``.
Real numbers occur once: ``scale`` says what a code stands for, for people and for exporters; no
executor looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from jaxtyping import Int
from torch import Tensor

from quantisp.errors import SettingError
from quantisp.quantization.activations.rescaling import Rescale
from quantisp.quantization.activations.settings import TieRule, check_accumulator_bits
from quantisp.quantization.activations.tensors import code_range
from quantisp.quantization.graph.nodes import Graph, Linear, Node

__all__ = [
    "OVERFLOWS",
    "Accumulator",
    "Codes",
    "IntegerNetwork",
    "NodeIntegers",
    "Overflow",
    "Weights",
    "channel_axis",
]

Overflow = Literal["error", "wrap", "clamp"]
OVERFLOWS: tuple[Overflow, ...] = get_args(Overflow)


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The integers of a tensor.

    Args:
        bits: how wide they are stored, 4 to 16.
        signed: in two's complement.
        low, high: the least and the greatest code that there can be, both within ``bits``: what
            the node's result is clamped to. A ReLU is a ``low`` of 0.
        scale: what a code of 1 stands for.
    """

    bits: int
    signed: bool
    low: int
    high: int
    scale: float

    @property
    def qmin(self) -> int:
        """The least code of so many bits."""
        return code_range(self.bits, signed=self.signed)[0]

    @property
    def qmax(self) -> int:
        """The greatest code of so many bits."""
        return code_range(self.bits, signed=self.signed)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """What a convolution or a matrix product multiplies by, and adds.

    Args:
        codes: int32, in the shape of PyTorch's layer.
        bits: how wide a weight is, 2 to 16, signed.
        bias: int64, of the accumulator's scale, one for each output channel.
        bias_bits: how wide a bias is, 8 to 48, signed.
    """

    codes: Int[Tensor, "*shape"]
    bits: int
    bias: Int[Tensor, " channels"]
    bias_bits: int


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeIntegers:
    """The integers of one node.

    Args:
        codes: of the tensor that it gives.
        weights: of a ``Conv``, ``ConvTranspose`` or ``Linear``, else None.
        rescale: multipliers (a row for each input, a column for each output channel or one for all)
            and shifts, of nodes that compute; None for the input, tables and moves.
        table: of a ``Table``: the code for each input code, from the input's ``low`` on.
    """

    codes: Codes
    weights: Weights | None = None
    rescale: Rescale | None = None
    table: Int[Tensor, " entries"] | None = None


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """How wide the sum of products and bias is kept, in layers with weights.

    Args:
        bits: 8 to 64, signed.
        overflow: what becomes of an exact sum that does not fit: an ``error``, ``wrap`` (its
            lowest bits) or ``clamp`` (the nearest that fits).

    Raises:
        SettingError: a width or a way that there is not.
    """

    bits: int
    overflow: Overflow = "error"

    def __post_init__(self) -> None:
        check_accumulator_bits(self.bits)
        if self.overflow not in OVERFLOWS:
            raise SettingError(
                f"expected one of {', '.join(OVERFLOWS)}, found {self.overflow!r}: choose one"
            )

    @property
    def least(self) -> int:
        """The least sum that fits."""
        return -(1 << (self.bits - 1))

    @property
    def greatest(self) -> int:
        """The greatest sum that fits."""
        return (1 << (self.bits - 1)) - 1

    def apply(self, total: int) -> int | None:
        """What is kept of an exact sum; None is an error.

        >>> [Accumulator(bits=8, overflow=way).apply(130) for way in ("error", "wrap", "clamp")]
        [None, -126, 127]
        """
        if self.least <= total <= self.greatest:
            return total
        if self.overflow == "clamp":
            return min(max(total, self.least), self.greatest)
        wrapped = (total - self.least) % (1 << self.bits) + self.least
        return wrapped if self.overflow == "wrap" else None


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerNetwork:
    """A network in integers.

    Args:
        graph: what is computed from what.
        integers: of each node, by its name.
        tie_rule: what becomes of a result in the middle between two integers.
        accumulator: None is as wide as it has to be.
        origin: what it was made from, in words, for people.
    """

    graph: Graph
    integers: Mapping[str, NodeIntegers]
    tie_rule: TieRule
    accumulator: Accumulator | None = None
    origin: Mapping[str, str] = field(default_factory=dict[str, str])

    def __iter__(self) -> Iterator[tuple[Node, NodeIntegers]]:
        """Each node with its integers, after its inputs."""
        return ((node, self.integers[node.name]) for node in self.graph.nodes)

    def layers(self) -> Iterator[tuple[Node, NodeIntegers, Weights, Codes]]:
        """Each node that has weights: with its integers, its weights, and its input's codes."""
        for node, own in self:
            if own.weights is not None:
                yield node, own, own.weights, self.integers[node.inputs[0]].codes

    def with_accumulator(self, accumulator: Accumulator | None) -> IntegerNetwork:
        """The same network with accumulators of another width."""
        return replace(self, accumulator=accumulator)

    @property
    def power_of_two(self) -> bool:
        """Whether every multiplier is a power of two, so that nothing but shifts is needed."""
        found = [own.rescale.multiplier for _, own in self if own.rescale is not None]
        return all(bool((m.abs() & (m.abs() - 1) == 0).all()) for m in found)


def channel_axis(node: Node) -> int:
    """The axis of output channels in what a node with weights gives."""
    return -1 if isinstance(node.operation, Linear) else -3
