"""Which node stands for which operation of PyTorch: one function and one line for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from quantisp.quantization.graph.arithmetic import ARITHMETIC
from quantisp.quantization.graph.layout import LAYOUT
from quantisp.quantization.graph.lowering import Lowering
from quantisp.quantization.graph.nodes import Conv, ConvTranspose, Linear
from quantisp.quantization.graph.values import Call, Value

__all__ = ["LOWERINGS"]


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


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = (*values, *values)[:2]
    return first, second


LAYERS: dict[str, Callable[[Lowering, Call], Value]] = {
    "aten.conv2d.default": _conv,
    "aten.conv2d.padding": _conv,
    "aten.conv_transpose2d.input": _conv_transpose,
    "aten.linear.default": _linear,
}
LOWERINGS = {**LAYERS, **ARITHMETIC, **LAYOUT}
