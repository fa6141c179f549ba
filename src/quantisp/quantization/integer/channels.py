"""How many channels each node gives, as far as the nodes themselves say it: for files."""

from __future__ import annotations

from collections.abc import Sequence

from quantisp.errors import ModelError
from quantisp.quantization.graph.nodes import (
    Add,
    Concat,
    Conv,
    ConvTranspose,
    Mask,
    Multiply,
    Node,
    Pad,
    PixelShuffle,
    PixelUnshuffle,
    Requantize,
    Resize,
    Slice,
    Table,
)
from quantisp.quantization.integer.network import NodeIntegers

__all__ = ["channels_of"]

CHANNELS_AXIS = 1


def channels_of(node: Node, own: NodeIntegers, given: Sequence[int | None]) -> int | None:
    """The channels that a node gives; None where that cannot be told without running it.

    Args:
        node: one of a graph of pictures (n, channels, h, w).
        own: its integers.
        given: of its inputs.

    Raises:
        ModelError: the node cannot take inputs of so many.
    """
    operation = node.operation
    known = [count for count in given if count is not None]
    found = given[0] if given else None
    match operation:
        case Conv() | ConvTranspose() if own.weights is not None:
            shape = own.weights.codes.shape
            transposed = isinstance(operation, ConvTranspose)
            takes = shape[0] if transposed else shape[1] * operation.groups
            _must(node, found in (None, takes), found, f"weights for {takes}")
            found = shape[1] * operation.groups if transposed else shape[0]
        case Add() | Multiply():
            several = {count for count in known if count != 1}
            _must(node, len(several) <= 1, known, "one number of them")
            # One channel is for all: with an unknown one it may become more.
            found = None if len(known) < len(given) else max(known)
        case PixelShuffle():
            square = operation.factor**2
            _must(node, found is None or found % square == 0, found, f"a multiple of {square}")
            found = None if found is None else found // square
        case PixelUnshuffle():
            found = None if found is None else found * operation.factor**2
        case Concat():
            if operation.axis == CHANNELS_AXIS:
                found = sum(known) if len(known) == len(given) else None
        case Mask():
            tile = len(operation.tile)
            _must(node, 1 in (tile, found) or found in (None, tile), found, f"a mask of {tile}")
            found = tile if found == 1 else found
        case Table() | Requantize() | Pad() | Resize():
            pass
        case Slice() if operation.axis != CHANNELS_AXIS:
            pass
        case _:
            # The network's input, products over the last axis, axes in another order.
            found = None
    return found


def _must(node: Node, fits: bool, found: object, wanted: str) -> None:
    if not fits:
        raise ModelError(f"node {node.name!r} gets {found} channels, and has {wanted}")
