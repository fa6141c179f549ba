"""Nodes that move numbers or keep them: one function and one line for each operation of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from quantisp.quantization.graph.lowering import Lowering
from quantisp.quantization.graph.nodes import (
    Concat,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Resize,
    Slice,
)
from quantisp.quantization.graph.values import Call, Constant, Tiled, Value, Zeros, as_tile

__all__ = ["LAYOUT"]

END = 2**63 - 1


def _shuffle(lowering: Lowering, call: Call) -> Value:
    if isinstance(call["self"], Zeros):
        return Zeros()
    operation = PixelShuffle(factor=call["upscale_factor"])
    return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)


def _unshuffle(lowering: Lowering, call: Call) -> Value:
    operation = PixelUnshuffle(factor=call["downscale_factor"])
    return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)


def _concat(lowering: Lowering, call: Call) -> Value:
    names = [lowering.tensor(value, call.target) for value in call["tensors"]]
    return lowering.add(Concat(axis=call["dim"]), *names, name=call.name)


def _pad(lowering: Lowering, call: Call) -> Value:
    amounts = [lowering.size(size) for size in call["pad"]]
    mode = call.arguments.get("mode", "constant")
    if len(amounts) > 4 or call.arguments.get("value") not in (None, 0, 0.0):
        raise lowering.unknown(f"{call.target} of other axes than height and width, or not by zero")
    left, right, top, bottom = [*amounts, 0, 0][:4]
    operation = Pad(amounts=(left, right, top, bottom), mode=mode)
    return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)


def _slice(lowering: Lowering, call: Call) -> Value:
    start, stop = call["start"] or 0, call["end"]
    stop = None if isinstance(stop, int) and stop >= END else stop
    value = call["self"]
    if isinstance(value, Zeros) or (
        isinstance(start, int) and start == 0 and stop is None and call["step"] == 1
    ):
        return value
    operation = Slice(
        axis=call["dim"],
        start=lowering.size(start),
        stop=None if stop is None else lowering.size(stop),
        step=call["step"],
    )
    return lowering.add(operation, lowering.tensor(value, call.target), name=call.name)


def _split(lowering: Lowering, call: Call) -> Value:
    """Chunks and splits, as slices."""
    name, axis = lowering.tensor(call["self"], call.target), call["dim"]
    pieces: list[str] = []
    start = 0
    for index, piece in enumerate(call.result):
        length = piece.shape[axis]
        if not isinstance(length, int):
            raise lowering.unknown(f"{call.target} along an axis of no fixed size")
        operation = Slice(axis=axis, start=start, stop=start + length)
        pieces.append(lowering.add(operation, name, name=f"{call.name}_{index}"))
        start += length
    return pieces


def _item(_lowering: Lowering, call: Call) -> Value:
    return call["0"][call["1"]]


def _permute(lowering: Lowering, call: Call) -> Value:
    """Permute, transpose and movedim: told apart by where they put the axes of an example."""
    target = call.target.removeprefix("aten.").split(".")[0]
    probe = torch.empty(tuple(range(call.result.ndim)), device="meta")
    arguments = [value for key, value in call.arguments.items() if key != "self"]
    axes = tuple(getattr(torch, target)(probe, *arguments).shape)
    name = lowering.tensor(call["self"], call.target)
    return lowering.add(Permute(axes=axes), name, name=call.name)


def _nearest(lowering: Lowering, call: Call) -> Value:
    scales = call.arguments.get("scale_factors")
    if scales is None:
        before = call.nodes[next(iter(call.arguments))].meta["val"].shape[2:]
        scales = [
            after / size if isinstance(after, int) and isinstance(size, int) else 0.0
            for after, size in zip(call.result.shape[2:], before, strict=True)
        ]
    if any(scale < 1 or scale != int(scale) for scale in scales):
        raise lowering.unknown(f"{call.target} by other than whole factors")
    operation = Resize(factors=(int(scales[0]), int(scales[1])))
    return lowering.add(operation, lowering.tensor(call["input"], call.target), name=call.name)


def _repeat(lowering: Lowering, call: Call) -> Value:
    """Of a constant, over the whole picture."""
    value, repeats = call["self"], call["repeats"]
    if not isinstance(value, Constant) or any(number != 1 for number in repeats[:-2]):
        raise lowering.unknown(call.target)
    tile = as_tile(value)
    if tile is None:
        raise lowering.unknown(f"{call.target} of other numbers than 0 and 1")
    return Tiled(tile=tile)


def _expand(lowering: Lowering, call: Call) -> Value:
    if isinstance(call["self"], Zeros):
        return Zeros()
    raise lowering.unknown(call.target)


def _full(lowering: Lowering, call: Call) -> Value:
    if call.arguments.get("fill_value", 0) != 0:
        raise lowering.unknown(f"{call.target} of {call['fill_value']}")
    return Zeros()


def _same(_lowering: Lowering, call: Call) -> Value:
    return next(iter(call.arguments.values()))


def _dropout(lowering: Lowering, call: Call) -> Value:
    if call["train"]:
        raise lowering.unknown(f"{call.target} in training mode")
    return call["input"]


LAYOUT: dict[str, Callable[[Lowering, Call], Value]] = {
    "aten._to_copy.default": _same,
    "aten.alias.default": _same,
    "aten.cat.default": _concat,
    "aten.chunk.default": _split,
    "aten.clone.default": _same,
    "aten.contiguous.default": _same,
    "aten.detach.default": _same,
    "aten.dropout.default": _dropout,
    "aten.expand.default": _expand,
    "aten.full.default": _full,
    "aten.movedim.int": _permute,
    "aten.movedim.intlist": _permute,
    "aten.new_zeros.default": _full,
    "aten.pad.default": _pad,
    "aten.permute.default": _permute,
    "aten.pixel_shuffle.default": _shuffle,
    "aten.pixel_unshuffle.default": _unshuffle,
    "aten.repeat.default": _repeat,
    "aten.slice.Tensor": _slice,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.to.dtype": _same,
    "aten.transpose.int": _permute,
    "aten.upsample_nearest2d.vec": _nearest,
    "aten.zeros.default": _full,
    "getitem": _item,
}
