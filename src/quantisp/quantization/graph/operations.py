"""Which node stands for which operation of PyTorch: one function and one line for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quantisp.quantization.graph.lowering import Lowering
from quantisp.quantization.graph.nodes import (
    Add,
    Clamp,
    Concat,
    Conv,
    ConvTranspose,
    Linear,
    Mask,
    Multiply,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Resize,
    Slice,
    Table,
)
from quantisp.quantization.graph.values import Call, Constant, Tiled, Value, Zeros

__all__ = ["LOWERINGS"]

END = 2**63 - 1
INFINITY = float("inf")


def _conv(lowering: Lowering, call: Call) -> Value:
    padding = call["padding"]
    operation = Conv(
        layer=lowering.layer(call, nn.Conv2d),
        stride=_pair(call["stride"]),
        padding=padding if isinstance(padding, str) else _pair(padding),
        dilation=_pair(call["dilation"]),
        groups=call["groups"],
    )
    return lowering.add(operation, lowering.tensor(call["input"], call.target), name=call.name)


def _conv_transpose(lowering: Lowering, call: Call) -> Value:
    operation = ConvTranspose(
        layer=lowering.layer(call, nn.ConvTranspose2d),
        stride=_pair(call["stride"]),
        padding=_pair(call["padding"]),
        output_padding=_pair(call["output_padding"]),
        dilation=_pair(call["dilation"]),
        groups=call["groups"],
    )
    return lowering.add(operation, lowering.tensor(call["input"], call.target), name=call.name)


def _linear(lowering: Lowering, call: Call) -> Value:
    operation = Linear(layer=lowering.layer(call, nn.Linear))
    return lowering.add(operation, lowering.tensor(call["input"], call.target), name=call.name)


def _add(lowering: Lowering, call: Call) -> Value:
    return _sum(lowering, call, call["self"], call["other"], 1.0)


def _subtract(lowering: Lowering, call: Call) -> Value:
    return _sum(lowering, call, call["self"], call["other"], -1.0)


def _reverse_subtract(lowering: Lowering, call: Call) -> Value:
    return _sum(lowering, call, call["other"], call["self"], -1.0)


def _sum(lowering: Lowering, call: Call, first: Any, second: Any, sign: float) -> Value:
    if call.arguments.get("alpha", 1) != 1:
        raise lowering.unknown(f"{call.target} with alpha {call['alpha']}")
    if isinstance(second, Zeros):
        return first
    if isinstance(first, Zeros) and sign > 0:
        return second
    first_number, second_number = _number(first), _number(second)
    if second_number is not None:
        return _affine(lowering, call, first, 1.0, sign * second_number)
    if first_number is not None:
        return _affine(lowering, call, second, sign, first_number)
    names = [lowering.tensor(value, call.target) for value in (first, second)]
    _check_same_shape(lowering, call)
    return lowering.add(Add(sign=int(sign)), *names, name=call.name)


def _multiply(lowering: Lowering, call: Call) -> Value:
    first, second = call["self"], call["other"]
    if isinstance(first, Zeros) or isinstance(second, Zeros):
        return Zeros()
    for value, other in ((first, second), (second, first)):
        number = _number(other)
        if number is not None:
            return _affine(lowering, call, value, number, 0.0)
        tile = _tile(other)
        if tile is not None and isinstance(value, str):
            return lowering.add(Mask(tile=tile), value, name=call.name)
    names = [
        lowering.tensor(value, f"{call.target} by other numbers than 0 and 1")
        for value in (first, second)
    ]
    _check_same_shape(lowering, call)
    return lowering.add(Multiply(), *names, name=call.name)


def _divide(lowering: Lowering, call: Call) -> Value:
    number = _number(call["other"])
    if not number or call.arguments.get("rounding_mode") is not None:
        raise lowering.unknown(f"{call.target} by a tensor")
    return _affine(lowering, call, call["self"], 1.0 / number, 0.0)


def _negate(lowering: Lowering, call: Call) -> Value:
    return _affine(lowering, call, call["self"], -1.0, 0.0)


def _add_product(lowering: Lowering, call: Call) -> Value:
    if call["value"] != 1:
        raise lowering.unknown(f"{call.target} with value {call['value']}")
    total, *factors = (
        lowering.tensor(call[name], call.target) for name in ("self", "tensor1", "tensor2")
    )
    product = lowering.add(Multiply(), *factors, name=f"{call.name}_product")
    return lowering.add(Add(), total, product, name=call.name)


def _affine(lowering: Lowering, call: Call, value: Any, factor: float, offset: float) -> Value:
    name = lowering.tensor(value, call.target)
    if (factor, offset) == (1.0, 0.0):
        return name
    return lowering.add(Table(function="affine", parameters=(factor, offset)), name, name=call.name)


def _table(function: str, *parameters: str) -> Callable[[Lowering, Call], Value]:
    def lowered(lowering: Lowering, call: Call) -> Value:
        numbers = tuple(float(call[name]) for name in parameters)
        operation = Table(function=function, parameters=numbers)
        return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)

    return lowered


def _gelu(lowering: Lowering, call: Call) -> Value:
    if call["approximate"] != "none":
        raise lowering.unknown(f"{call.target} with approximate {call['approximate']!r}")
    return _table("gelu")(lowering, call)


def _softplus(lowering: Lowering, call: Call) -> Value:
    if (call["beta"], call["threshold"]) != (1, 20):
        raise lowering.unknown(f"{call.target} with other numbers than its own")
    return _table("softplus")(lowering, call)


def _clamp(lower: float | str | None, upper: float | str | None) -> Callable[..., Value]:
    """A limit: a number, an argument's name, or None."""

    def lowered(lowering: Lowering, call: Call) -> Value:
        limits = [call[limit] if isinstance(limit, str) else limit for limit in (lower, upper)]
        clamp = Clamp(
            lower=-INFINITY if limits[0] is None else float(limits[0]),
            upper=INFINITY if limits[1] is None else float(limits[1]),
        )
        operation = Table(function="clamp", parameters=(clamp.lower, clamp.upper))
        return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)

    return lowered


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
    tile = _tile(value)
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


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = (*values, *values)[:2]
    return first, second


def _number(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Constant) and value.tensor.numel() == 1:
        return float(value.tensor)
    return None


def _tile(value: Any) -> Tensor | None:
    """A constant of zeros and ones as (c, h, w)."""
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


def _check_same_shape(lowering: Lowering, call: Call) -> None:
    """Channels that are stretched over others would need a node of their own."""
    shapes = [node.meta["val"].shape for node in call.nodes.values()]
    fixed = [[size if isinstance(size, int) else None for size in shape] for shape in shapes]
    if any(shape != fixed[0] for shape in fixed):
        raise lowering.unknown(f"{call.target} of tensors of two shapes")


LOWERINGS: dict[str, Callable[[Lowering, Call], Value]] = {
    "aten._to_copy.default": _same,
    "aten.abs.default": _table("abs"),
    "aten.add.Scalar": _add,
    "aten.add.Tensor": _add,
    "aten.addcmul.default": _add_product,
    "aten.alias.default": _same,
    "aten.cat.default": _concat,
    "aten.chunk.default": _split,
    "aten.clamp.default": _clamp("min", "max"),
    "aten.clamp_max.default": _clamp(None, "max"),
    "aten.clamp_min.default": _clamp("min", None),
    "aten.clone.default": _same,
    "aten.contiguous.default": _same,
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.conv_transpose2d.input": _conv_transpose,
    "aten.detach.default": _same,
    "aten.div.Scalar": _divide,
    "aten.div.Tensor": _divide,
    "aten.dropout.default": _dropout,
    "aten.expand.default": _expand,
    "aten.full.default": _full,
    "aten.gelu.default": _gelu,
    "aten.hardsigmoid.default": _table("hardsigmoid"),
    "aten.hardswish.default": _table("hardswish"),
    "aten.hardtanh.default": _clamp("min_val", "max_val"),
    "aten.leaky_relu.default": _table("leaky_relu", "negative_slope"),
    "aten.linear.default": _linear,
    "aten.movedim.int": _permute,
    "aten.movedim.intlist": _permute,
    "aten.mul.Scalar": _multiply,
    "aten.mul.Tensor": _multiply,
    "aten.neg.default": _negate,
    "aten.new_zeros.default": _full,
    "aten.pad.default": _pad,
    "aten.permute.default": _permute,
    "aten.pixel_shuffle.default": _shuffle,
    "aten.pixel_unshuffle.default": _unshuffle,
    "aten.relu.default": _clamp(0.0, None),
    "aten.relu6.default": _clamp(0.0, 6.0),
    "aten.repeat.default": _repeat,
    "aten.rsub.Scalar": _reverse_subtract,
    "aten.rsub.Tensor": _reverse_subtract,
    "aten.sigmoid.default": _table("sigmoid"),
    "aten.silu.default": _table("silu"),
    "aten.slice.Tensor": _slice,
    "aten.softplus.default": _softplus,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.sub.Scalar": _subtract,
    "aten.sub.Tensor": _subtract,
    "aten.tanh.default": _table("tanh"),
    "aten.to.dtype": _same,
    "aten.transpose.int": _permute,
    "aten.upsample_nearest2d.vec": _nearest,
    "aten.zeros.default": _full,
    "getitem": _item,
}
