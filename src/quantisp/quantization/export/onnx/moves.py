"""Moves in ONNX: what changes no values. Sizes may follow from the picture's."""

from __future__ import annotations

import numpy as np

from quantisp.errors import ModelError
from quantisp.quantization.export.onnx.builder import GraphBuilder
from quantisp.quantization.export.onnx.sizes import Sizes
from quantisp.quantization.graph import nodes as ops
from quantisp.quantization.graph.nodes import Node

__all__ = ["add_move"]

Shape = tuple[int, ...]
END = (1 << 63) - 1
PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def add_move(
    builder: GraphBuilder,
    sizes: Sizes,
    node: Node,
    inputs: list[str],
    shapes: list[Shape],
    picture: tuple[int, int] | None,
) -> str:
    """The tensor that a move gives; its node is the last one.

    Args:
        builder: of the graph.
        sizes: of the graph.
        node: the move.
        inputs: tensors of floats.
        shapes: of the inputs, at some size; heights and widths count only where they are known.
        picture: the only height and width that the file is for, or None.

    Raises:
        ModelError: a move that there is no operation for.
    """
    operation, x, axes = node.operation, inputs[0], len(shapes[0])
    match operation:
        case ops.PixelShuffle(factor=r):
            return builder.add("DepthToSpace", x, blocksize=r, mode="CRD")
        case ops.PixelUnshuffle(factor=r):
            return _unshuffled(builder, x, r, shapes[0][1])
        case ops.Concat():
            return builder.add("Concat", *inputs, axis=operation.axis % axes)
        case ops.Pad():
            return _padded(builder, sizes, operation, x, axes)
        case ops.Slice():
            stop = END if operation.stop is None else operation.stop
            start, end = (sizes.tensor(size) for size in (operation.start, stop))
            axis, step = [operation.axis % axes], [operation.step]
            return builder.add("Slice", x, start, end, builder.whole(axis), builder.whole(step))
        case ops.Permute():
            return builder.add("Transpose", x, perm=[axis % axes for axis in operation.axes])
        case ops.Resize(factors=factors):
            scales = builder.floats([1, 1, *factors])
            return builder.add(
                "Resize",
                x,
                "",
                scales,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        case ops.Mask():
            return _masked(builder, operation, x, shapes[0] if picture else None)
        case _:
            raise ModelError(
                f"expected operations that ONNX has, node {node.name!r} at {node.where} is a "
                f"{type(operation).__name__}: do without it"
            )


def _unshuffled(builder: GraphBuilder, x: str, factor: int, channels: int) -> str:
    """SpaceToDepth has the places before the channels; here they come behind."""
    moved = builder.add("SpaceToDepth", x, blocksize=factor)
    if channels == 1:
        return moved
    order = np.arange(channels * factor**2).reshape(factor**2, channels).T.reshape(-1)
    return builder.add("Gather", moved, builder.whole(order.tolist()), axis=1)


def _padded(builder: GraphBuilder, sizes: Sizes, operation: ops.Pad, x: str, axes: int) -> str:
    left, right, top, bottom = operation.amounts
    amounts = [*[0] * (axes - 2), top, left, *[0] * (axes - 2), bottom, right]
    known = [sizes.known(amount) for amount in amounts]
    if None in known:
        pads = builder.add("Concat", *(sizes.tensor(amount) for amount in amounts), axis=0)
    else:
        pads = builder.whole([amount for amount in known if amount is not None])
    return builder.add("Pad", x, pads, mode=PAD_MODES[operation.mode])


def _masked(builder: GraphBuilder, operation: ops.Mask, x: str, shape: Shape | None) -> str:
    """Times the tile as often as it takes, cut to the picture."""
    rows, columns = operation.tile.shape[1:]
    tile = builder.floats(operation.tile.numpy()[None])
    period = [rows, columns]
    if shape is None:
        size = builder.add("Shape", x, start=2, end=4)
        above = builder.add("Add", size, builder.whole([rows - 1, columns - 1]))
        counts = builder.add("Div", above, builder.whole(period))
        repeats = builder.add("Concat", builder.whole([1, 1]), counts, axis=0)
    else:
        size = builder.whole(list(shape[2:]))
        repeats = builder.whole([1, 1, -(-shape[2] // rows), -(-shape[3] // columns)])
    tiled = builder.add("Tile", tile, repeats)
    cut = builder.add("Slice", tiled, builder.whole([0, 0]), size, builder.whole([2, 3]))
    return builder.add("Mul", x, cut)
