"""Nodes in C: the statements that find the shapes of their tensors."""

from __future__ import annotations

from typing import Any

from quantisp.errors import ModelError
from quantisp.quantization.export.c.places import AXES, Place
from quantisp.quantization.export.c.sizes import size_in_c
from quantisp.quantization.graph import nodes as ops
from quantisp.quantization.graph.nodes import Node
from quantisp.quantization.integer import NodeIntegers
from quantisp.quantization.integer.operations import encode_operation

__all__ = ["shape_lines"]


def shape_lines(node: Node, own: NodeIntegers, given: list[Place], index: int) -> list[str]:
    """Statements that find a node's shape, or return 0."""
    operation: Any = node.operation
    match operation:
        case ops.Conv() | ops.ConvTranspose() | ops.Linear():
            checks, sizes = _layer_sizes(node, own, given[0])
        case ops.Concat(axis=axis):
            checks, sizes = _concat_sizes(given, AXES[axis % 4])
        case ops.Pad():
            return _pad_shape(node, given[0], index)
        case ops.Slice():
            return _slice_shape(node, given[0], index)
        case ops.Add() | ops.Multiply():
            checks, sizes = [f"!same({given[0].shape}, {given[1].shape})"], _sizes(given[0])
        case _:
            checks, sizes = _moved_sizes(operation, given[0])
    return [*_refused(checks), _sized(index, *sizes)]


def _sizes(place: Place) -> list[str]:
    return [f"{place.shape}.{axis}" for axis in AXES]


def _moved_sizes(operation: Any, given: Place) -> tuple[list[str], list[str]]:
    """What is refused, and the sizes of what is moved, or only changed code by code."""
    n, c, h, w = _sizes(given)
    match operation:
        case ops.PixelShuffle(factor=f):
            return [f"{c} % {f * f} != 0"], [n, f"{c} / {f * f}", f"{h} * {f}", f"{w} * {f}"]
        case ops.PixelUnshuffle(factor=f):
            checks = [f"{h} % {f} != 0 || {w} % {f} != 0"]
            return checks, [n, f"{c} * {f * f}", f"{h} / {f}", f"{w} / {f}"]
        case ops.Permute(axes=axes):
            return [], [f"{given.shape}.{AXES[axis % 4]}" for axis in axes]
        case ops.Resize(factors=(down, across)):
            return [], [n, c, f"{h} * {down}", f"{w} * {across}"]
        case ops.Mask(tile=tile):
            own = len(tile)
            checks = [f"{c} != 1 && {c} != {own}"] if own != 1 else []
            return checks, [n, str(own) if own != 1 else c, h, w]
        case _:
            return [], [n, c, h, w]


def _layer_sizes(node: Node, own: NodeIntegers, given: Place) -> tuple[list[str], list[str]]:
    operation: Any = node.operation
    inputs, outputs = _weight_shape(node, own)
    n, c, h, w = _sizes(given)
    if isinstance(operation, ops.Linear):
        return [f"{w} != {inputs}"], [n, c, h, str(outputs)]
    down, across = (_convolved(operation, x, own, axis) for axis, x in enumerate((h, w)))
    return [f"{c} != {inputs}"], [n, str(outputs), down, across]


def _refused(checks: list[str]) -> list[str]:
    return [f"if ({check}) return 0;" for check in checks]


def _sized(index: int, *sizes: str) -> str:
    numbers = ", ".join(f"(int64_t)({size})" for size in sizes)
    return f"if (!sized(&s[{index}], {numbers})) return 0;"


def _weight_shape(node: Node, own: NodeIntegers) -> tuple[int, int]:
    """Channels in and out."""
    operation: Any = node.operation
    if own.weights is None:
        raise ModelError(f"expected weights in node {node.name!r}, found none")
    shape, outputs = own.weights.codes.shape, len(own.weights.bias)
    if isinstance(operation, ops.ConvTranspose):
        return shape[0], outputs
    return shape[1] * (operation.groups if isinstance(operation, ops.Conv) else 1), outputs


def _convolved(operation: Any, size: str, own: NodeIntegers, axis: int) -> str:
    kernel = 1 if own.weights is None else own.weights.codes.shape[2 + axis]
    reach = operation.dilation[axis] * (kernel - 1)
    stride, padding = operation.stride[axis], operation.padding[axis]
    if isinstance(operation, ops.ConvTranspose):
        more = reach + operation.output_padding[axis] + 1 - 2 * padding
        return f"((int64_t){size} - 1) * {stride} + {more}"
    return f"floored((int64_t){size} + {2 * padding - reach - 1}, {stride}) + 1"


def _concat_sizes(given: list[Place], axis: str) -> tuple[list[str], list[str]]:
    checks = [
        f"{given[0].shape}.{other} != {place.shape}.{other}"
        for place in given[1:]
        for other in AXES
        if other != axis
    ]
    total = " + ".join(f"(int64_t){place.shape}.{axis}" for place in given)
    return checks, [total if a == axis else f"{given[0].shape}.{a}" for a in AXES]


def _pad_shape(node: Node, given: Place, index: int) -> list[str]:
    operation: Any = node.operation
    amounts = [size_in_c(tree) for tree in encode_operation(operation)["amounts"]]
    left, right, top, bottom = (f"p[{index}][{k}]" for k in range(4))
    lines = [f"p[{index}][{k}] = {amount};" for k, amount in enumerate(amounts)]
    if operation.mode != "constant":
        most = {"reflect": -1, "replicate": 1 << 30, "circular": 0}[operation.mode]
        pairs = ((left, "w"), (right, "w"), (top, "h"), (bottom, "h"))
        lines += _refused(
            [f"{x} < 0 || {x} > (int64_t){given.shape}.{axis} + {most}" for x, axis in pairs]
        )
    sizes = [
        f"{given.shape}.n",
        f"{given.shape}.c",
        f"(int64_t){given.shape}.h + {top} + {bottom}",
        f"(int64_t){given.shape}.w + {left} + {right}",
    ]
    return [*lines, _sized(index, *sizes)]


def _slice_shape(node: Node, given: Place, index: int) -> list[str]:
    """As Python's slices: ends beyond an end are that end, and negative ones count from it."""
    operation: Any = node.operation
    encoded = encode_operation(operation)
    axis = AXES[operation.axis % 4]
    size = f"(int64_t){given.shape}.{axis}"
    start = size_in_c(encoded["start"])
    stop = size if encoded["stop"] is None else size_in_c(encoded["stop"])
    lines = [
        f"p[{index}][0] = bounded({start}, {size});",
        f"p[{index}][1] = bounded({stop}, {size});",
    ]
    count = f"floored(p[{index}][1] - p[{index}][0] + {operation.step - 1}, {operation.step})"
    sizes = [count if other == axis else f"{given.shape}.{other}" for other in AXES]
    return [*lines, _sized(index, *sizes)]
