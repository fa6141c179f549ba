"""The specification: what an integer network computes, in Python's integers, one number at a time.

To be read beside hardware, and far too slow for pictures. ``executor`` does the same in bulk, and
gives the same codes to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from jaxtyping import Float
from torch import Tensor

from quantisp.errors import RunError
from quantisp.quantization.activations.rescaling import Rescale, rescale_scalar
from quantisp.quantization.graph import nodes as ops
from quantisp.quantization.graph.execution import check_size
from quantisp.quantization.graph.nodes import Extent, Node, Size
from quantisp.quantization.integer.network import (
    Accumulator,
    Codes,
    IntegerNetwork,
    NodeIntegers,
    channel_axis,
)
from quantisp.quantization.rounding import Rounding, round_scalar

__all__ = ["Array", "Rule", "node_rule", "run_specification"]

Index = tuple[int, ...]
Picture = tuple[int, int]
Rule = tuple[tuple[int, ...], Callable[[Index], int]]
"""A tensor's shape, and how each of its values is found from its index."""


@dataclass(frozen=True)
class Array:
    """Integers in rows, row after row."""

    shape: tuple[int, ...]
    values: list[int]

    @classmethod
    def of(cls, shape: Sequence[int], value: Callable[[Index], int]) -> Array:
        """Each value from its index."""
        return cls(tuple(shape), [value(index) for index in _indices(shape)])

    def __getitem__(self, index: Index) -> int:
        offset = 0
        for size, place in zip(self.shape, index, strict=True):
            offset = offset * size + place
        return self.values[offset]


def run_specification(
    network: IntegerNetwork, x: Float[Tensor, "n c h w"], wanted: Sequence[str] = ()
) -> dict[str, Array]:
    """The codes of some tensors by name; of the output, if none are named.

    Args:
        network: what to run.
        x: real numbers, as the graph takes them: see ``pad_inside``.
        wanted: names of nodes.

    Raises:
        RunError: a sum does not fit an accumulator whose overflow is an error.
    """
    size = check_size(network.graph, x)
    picture = [Fraction(value) for value in x.double().flatten().tolist()]
    found: dict[str, Array] = {}
    for node, own in network:
        inputs = [found[name] for name in node.inputs]
        if isinstance(node.operation, ops.Input):
            codes = [_input_code(value, own.codes, network.tie_rule) for value in picture]
            found[node.name] = Array(tuple(x.shape), codes)
        else:
            found[node.name] = Array.of(*node_rule(network, node, inputs, size))
    return {name: found[name] for name in wanted or (network.graph.output,)}


def node_rule(
    network: IntegerNetwork, node: Node, inputs: Sequence[Array], picture: Picture
) -> Rule:
    """How a node's values are found from those of its inputs.

    Args:
        network: whose integers, tie rule and accumulators hold.
        node: any but the input.
        inputs: codes.
        picture: height and width of the network's input.

    Raises:
        RunError: from the rule, if a sum does not fit an accumulator whose overflow is an error.
    """
    own = network.integers[node.name]
    if node.moves:
        return _move(node.operation, inputs, picture)
    if own.table is not None:
        low = network.integers[node.inputs[0]].codes.low
        table: list[int] = own.table.tolist()
        return inputs[0].shape, lambda i: table[inputs[0][i] - low]
    return _computed(node, own, inputs, network)


def _input_code(value: Fraction, codes: Codes, tie_rule: Rounding) -> int:
    return min(max(round_scalar(value * codes.qmax, tie_rule), codes.low), codes.high)


def _computed(
    node: Node, own: NodeIntegers, inputs: Sequence[Array], network: IntegerNetwork
) -> Rule:
    """Exact sums, each rescaled and rounded once, then limited."""
    rescale = own.rescale
    if rescale is None:
        raise RunError(f"expected multipliers and shifts of node {node.name!r}, found none")
    shape, axis = inputs[0].shape, 0
    sums: list[Callable[[Index], int]] = [x.__getitem__ for x in inputs]
    if own.weights is not None:
        shape, exact = _products(node, own, inputs[0])
        sums = [_kept(node, exact, network.accumulator)]
        axis = channel_axis(node) % len(shape)
    elif isinstance(node.operation, ops.Multiply):
        sums = [lambda i: inputs[0][i] * inputs[1][i]]
    multipliers, shifts = _columns(rescale)

    def code(index: Index) -> int:
        channel = index[axis] if len(shifts) > 1 else 0
        rounded = rescale_scalar(
            tuple(total(index) for total in sums),
            multipliers[channel],
            shifts[channel],
            network.tie_rule,
        )
        return min(max(rounded, own.codes.low), own.codes.high)

    return shape, code


def _columns(rescale: Rescale) -> tuple[list[tuple[int, ...]], list[int]]:
    """The multipliers of each channel, and its shift."""
    rows: list[list[int]] = rescale.multiplier.tolist()
    return list(zip(*rows, strict=True)), rescale.shift.tolist()


def _kept(
    node: Node, exact: Callable[[Index], int], accumulator: Accumulator | None
) -> Callable[[Index], int]:
    if accumulator is None:
        return exact

    def kept(index: Index) -> int:
        total = exact(index)
        value = accumulator.apply(total)
        if value is None:
            raise RunError(
                f"expected sums of {accumulator.bits} bits in node {node.name!r}, found {total}: "
                "let them wrap or clamp, or plan fewer bits"
            )
        return value

    return kept


def _products(node: Node, own: NodeIntegers, x: Array) -> Rule:
    """Bias plus products: of a convolution, a transposed one, or a matrix product."""
    if own.weights is None:
        return x.shape, x.__getitem__
    operation: Any = node.operation
    weight = Array(tuple(own.weights.codes.shape), own.weights.codes.flatten().tolist())
    bias: list[int] = own.weights.bias.tolist()
    if isinstance(operation, ops.Linear):
        return (
            (*x.shape[:-1], len(bias)),
            lambda i: (
                bias[i[-1]] + sum(x[(*i[:-1], k)] * weight[i[-1], k] for k in range(x.shape[-1]))
            ),
        )
    transposed = isinstance(operation, ops.ConvTranspose)
    groups, kernel = operation.groups, weight.shape[2:]
    per_group, taken = len(bias) // groups, x.shape[1] // groups

    def place(index: int, k: int, axis: int) -> int:
        """The row or column of the input that a tap of the kernel meets; -1 where there is none."""
        stride, padding = operation.stride[axis], operation.padding[axis]
        tap = k * operation.dilation[axis]
        if not transposed:
            return index * stride - padding + tap
        whole, rest = divmod(index + padding - tap, stride)
        return -1 if rest else whole

    def total(index: Index) -> int:
        n, channel, y, z = index
        group, inside = divmod(channel, per_group)
        found = bias[channel]
        for i, ky, kx in product(range(taken), range(kernel[0]), range(kernel[1])):
            row, column = place(y, ky, 0), place(z, kx, 1)
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                given = group * taken + i
                tap = (given, inside, ky, kx) if transposed else (channel, i, ky, kx)
                found += x[n, given, row, column] * weight[tap]
        return found

    sizes = [_size(operation, x.shape[2 + a], kernel[a], a) for a in (0, 1)]
    return (x.shape[0], len(bias), *sizes), total


def _size(operation: Any, size: int, kernel: int, axis: int) -> int:
    """The height or width that a convolution gives."""
    reach = operation.dilation[axis] * (kernel - 1)
    stride, padding = operation.stride[axis], operation.padding[axis]
    if isinstance(operation, ops.ConvTranspose):
        return (size - 1) * stride - 2 * padding + reach + operation.output_padding[axis] + 1
    return (size + 2 * padding - reach - 1) // stride + 1


def _move(operation: Any, inputs: Sequence[Array], picture: Picture) -> Rule:
    """Each value from one of the inputs, or 0."""
    x = inputs[0]
    shape = x.shape
    match operation:
        case ops.PixelShuffle(factor=r):
            n, c, h, w = shape
            return (
                (n, c // r**2, h * r, w * r),
                lambda i: x[i[0], i[1] * r**2 + i[2] % r * r + i[3] % r, i[2] // r, i[3] // r],
            )
        case ops.PixelUnshuffle(factor=r):
            n, c, h, w = shape
            return (
                (n, c * r**2, h // r, w // r),
                lambda i: x[i[0], i[1] // r**2, i[2] * r + i[1] // r % r, i[3] * r + i[1] % r],
            )
        case ops.Concat():
            return _joined(inputs, operation.axis % len(shape))
        case ops.Pad():
            return _padded(x, operation, picture)
        case ops.Slice():
            axis = operation.axis % len(shape)
            stop = None if operation.stop is None else _at(operation.stop, picture)
            part = slice(_at(operation.start, picture), stop, operation.step)
            kept = range(*part.indices(shape[axis]))
            return (
                (*shape[:axis], len(kept), *shape[axis + 1 :]),
                lambda i: x[(*i[:axis], kept[i[axis]], *i[axis + 1 :])],
            )
        case ops.Permute():
            order = [axis % len(shape) for axis in operation.axes]
            return (
                tuple(shape[axis] for axis in order),
                lambda i: x[tuple(i[order.index(axis)] for axis in range(len(order)))],
            )
        case ops.Resize(factors=(down, across)):
            n, c, h, w = shape
            return (
                (n, c, h * down, w * across),
                lambda i: x[i[0], i[1], i[2] // down, i[3] // across],
            )
        case _:
            return _masked(x, operation)


def _joined(inputs: Sequence[Array], axis: int) -> Rule:
    whole = [(part, place) for part in inputs for place in range(part.shape[axis])]
    shape = inputs[0].shape

    def value(i: Index) -> int:
        part, place = whole[i[axis]]
        return part[(*i[:axis], place, *i[axis + 1 :])]

    return (*shape[:axis], len(whole), *shape[axis + 1 :]), value


def _padded(x: Array, operation: ops.Pad, picture: Picture) -> Rule:
    left, right, top, bottom = (_at(amount, picture) for amount in operation.amounts)
    height, width = x.shape[-2:]

    def source(place: int, size: int) -> int:
        if operation.mode == "reflect":
            place = abs(place)
            return place if place < size else 2 * (size - 1) - place
        if operation.mode == "replicate":
            return min(max(place, 0), size - 1)
        return place % size if operation.mode == "circular" else place

    def value(i: Index) -> int:
        row, column = source(i[-2] - top, height), source(i[-1] - left, width)
        inside = 0 <= row < height and 0 <= column < width
        return x[(*i[:-2], row, column)] if inside else 0

    return (*x.shape[:-2], height + top + bottom, width + left + right), value


def _masked(x: Array, operation: ops.Mask) -> Rule:
    tile: list[Any] = operation.tile.tolist()
    n, c, h, w = x.shape

    def value(i: Index) -> int:
        own = tile[i[1] if len(tile) > 1 else 0]
        on = own[i[2] % len(own)][i[3] % len(own[0])]
        return x[i[0], i[1] if c > 1 else 0, i[2], i[3]] * int(on)

    return (n, max(c, len(tile)), h, w), value


def _at(size: Size, picture: Picture) -> int:
    return size.at(*picture) if isinstance(size, Extent) else size


def _indices(shape: Sequence[int]) -> Iterator[Index]:
    return product(*map(range, shape))
