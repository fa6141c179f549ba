"""Nodes in C: the calls that compute their tensors."""

from __future__ import annotations

from typing import Any

from quantisp.errors import ModelError
from quantisp.quantization.export.c.instances import Instances, short, width_for
from quantisp.quantization.export.c.layers import LayerCode
from quantisp.quantization.export.c.places import AXES, Place
from quantisp.quantization.graph import nodes as ops
from quantisp.quantization.graph.nodes import Node
from quantisp.quantization.integer import IntegerNetwork, NodeIntegers

__all__ = ["call_lines"]


def call_lines(
    instances: Instances,
    network: IntegerNetwork,
    node: Node,
    given: list[Place],
    own: Place,
    layer: LayerCode | None,
) -> list[str]:
    """Statements that compute a node's tensor."""
    if layer is not None:
        a = given[0]
        arguments = f"&layer_{own.index}, {a.pointer}, {a.shape}, {own.pointer}, {own.shape}"
        return [f"if ({layer.function}({arguments}, scratch)) return @NAMES@_OVERFLOW;"]
    integers = network.integers[node.name]
    count = f"elements({own.shape})"
    if isinstance(node.operation, ops.Input):
        instances.use("limited", "limited32", BITS=32)
        name = instances.use("input", f"input_{short(own.type)}", OUT=own.type)
        limits = f"{own.codes.low}, {own.codes.high}"
        return [f"{name}(input, {own.pointer}, {count}, {limits});"]
    if integers.table is not None:
        name = _instance(instances, "table", given[:1], own)
        low = network.integers[node.inputs[0]].codes.low
        return [f"{name}({given[0].pointer}, {own.pointer}, {count}, table_{own.index}, {low});"]
    if node.moves:
        return _move_lines(instances, node, given, own)
    return _computed_lines(instances, node, integers, given, own)


def _instance(
    instances: Instances, template: str, given: list[Place], own: Place, **words: object
) -> str:
    types = [short(place.type) for place in (*given, own)]
    suffix = "".join(f"_{value}" for value in words.values())
    letters = {letter: place.type for letter, place in zip("AB", given, strict=False)}
    name = f"{template}_{'_'.join(types)}{suffix}"
    return instances.use(template, name, OUT=own.type, **letters, **words)


def _computed_lines(
    instances: Instances, node: Node, integers: NodeIntegers, given: list[Place], own: Place
) -> list[str]:
    rescale = integers.rescale
    if rescale is None:
        raise ModelError(f"expected multipliers and shifts in node {node.name!r}, found none")
    multipliers: list[int] = rescale.multiplier[:, 0].tolist()
    shift = int(rescale.shift[0])
    largest = [max(-place.codes.low, place.codes.high) for place in given]
    if isinstance(node.operation, ops.Multiply):
        template, most = "multiply", largest[0] * largest[1] * multipliers[0]
    else:
        template = "add" if len(given) == 2 else "requantize"
        most = sum(x * abs(m) for x, m in zip(largest, multipliers, strict=True))
    bits = width_for(most, shift)
    instances.rounding(bits)
    name = _instance(instances, template, given, own, BITS=bits)
    pointers = ", ".join(place.pointer for place in (*given, own))
    numbers = ", ".join(map(str, (*multipliers, shift, own.codes.low, own.codes.high)))
    return [f"{name}({pointers}, elements({own.shape}), {numbers});"]


def _move_lines(instances: Instances, node: Node, given: list[Place], own: Place) -> list[str]:
    operation: Any = node.operation
    a = given[0]
    start = f"{a.pointer}, {a.shape}, {own.pointer}, {own.shape}"
    i = own.index
    match operation:
        case ops.PixelShuffle(factor=f) | ops.PixelUnshuffle(factor=f):
            shuffles = isinstance(operation, ops.PixelShuffle)
            template = "pixel_shuffle" if shuffles else "pixel_unshuffle"
            return [f"{_instance(instances, template, [a], own)}({start}, {f});"]
        case ops.Concat(axis=axis):
            return _concat_lines(instances, given, own, axis % 4)
        case ops.Pad(mode=mode):
            instances.use(f"source_{mode}", f"source_{mode}")
            name = _instance(instances, "pad", [a], own, MODE=mode)
            return [f"{name}({start}, p[{i}][0], p[{i}][2]);"]
        case ops.Slice(axis=axis, step=step):
            name = _instance(instances, "slice", [a], own)
            return [f"{name}({start}, {axis % 4}, (size_t)p[{i}][0], {step});"]
        case ops.Permute(axes=axes):
            order = ", ".join(str(axis % 4) for axis in axes)
            return [f"{_instance(instances, 'permute', [a], own)}({start}, {order});"]
        case ops.Resize(factors=(down, across)):
            return [f"{_instance(instances, 'resize', [a], own)}({start}, {down}, {across});"]
        case ops.Mask(tile=tile):
            sizes = ", ".join(map(str, tile.shape))
            name = _instance(instances, "mask", [a], own)
            return [f"{name}({start}, tile_{i}, {sizes});"]
        case _:
            raise ModelError(
                f"expected operations that C kernels are there for, found "
                f"{type(operation).__name__} of {node.name!r} at {node.where}: leave it out"
            )


def _concat_lines(instances: Instances, given: list[Place], own: Place, axis: int) -> list[str]:
    lines: list[str] = []
    before = "0"
    for place in given:
        offsets = ", ".join(before if k == axis else "0" for k in range(4))
        name = _instance(instances, "concat", [place], own)
        shapes = f"{place.pointer}, {place.shape}, {own.pointer}, {own.shape}"
        lines.append(f"{name}({shapes}, {offsets});")
        before = f"{before} + {place.shape}.{AXES[axis]}".removeprefix("0 + ")
    return lines
