"""Running a graph in float, as the network itself would; and what both executors share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import ModelError
from quantisp.quantization.graph.functions import apply_function
from quantisp.quantization.graph.nodes import (
    Add,
    Clamp,
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Input,
    Mask,
    Multiply,
    Node,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Resize,
    Size,
    Slice,
    Table,
)

__all__ = ["apply_move", "apply_weight", "check_size", "compute", "run_float", "run_nodes"]

Picture = tuple[int, int]


@torch.no_grad()
def run_float(
    graph: Graph, network: nn.Module, x: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n d h2 w2"]:
    """The output of the network, up to the rounding of float32.

    Args:
        graph: as captured.
        network: whose layers the graph names.
        x: as the graph takes it: see :func:`~quantisp.quantization.graph.pad_inside`.

    Raises:
        ModelError: the graph runs at one other size only.
    """
    return next(
        value for node, _, value in run_nodes(graph, network, x) if node.name == graph.output
    )


@torch.no_grad()
def run_nodes(
    graph: Graph, network: nn.Module, x: Float[Tensor, "n c h w"]
) -> Iterator[tuple[Node, list[Tensor], Tensor]]:
    """Each node in turn, with what it takes and gives; arguments and errors are `run_float`'s."""
    size = check_size(graph, x)
    layers = dict(network.named_modules())
    values: dict[str, Tensor] = {}
    last_uses = graph.last_uses()
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        layer = None if node.layer is None else layers[node.layer]
        is_input = isinstance(node.operation, Input)
        values[node.name] = x if is_input else compute(node, inputs, layer, size)
        yield node, inputs, values[node.name]
        for name in last_uses[node.name]:
            del values[name]


def check_size(graph: Graph, x: Tensor) -> Picture:
    """The height and width of an input.

    Raises:
        ModelError: the graph runs at one other size only.
    """
    size = (x.shape[2], x.shape[3])
    if graph.size not in (None, size):
        raise ModelError(
            f"expected an input of {graph.size[0]}x{graph.size[1]} px, for the network's own code "
            f"fixes that size, found {size[0]}x{size[1]}: calibrate with inputs of the size to run"
        )
    return size


def compute(node: Node, inputs: Sequence[Tensor], layer: nn.Module | None, size: Picture) -> Tensor:
    """What a node gives in float; ``layer`` is its layer, and ``size`` that of the input."""
    operation = node.operation
    if layer is not None:
        own = dict(layer.named_parameters(recurse=False))
        return _limited(
            apply_weight(operation, inputs[0], own["weight"], own.get("bias")), operation
        )
    if isinstance(operation, Add):
        return _limited(torch.add(inputs[0], inputs[1], alpha=operation.sign), operation)
    if isinstance(operation, Multiply):
        return _limited(inputs[0] * inputs[1], operation)
    if isinstance(operation, Table):
        return apply_function(operation.function, operation.parameters, inputs[0])
    return apply_move(operation, inputs, size)


def apply_weight(operation: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution or matrix product, without its limit."""
    if isinstance(operation, Conv):
        padding: Any = operation.padding
        return functional.conv2d(
            x, weight, bias, operation.stride, padding, operation.dilation, operation.groups
        )
    if isinstance(operation, ConvTranspose):
        return functional.conv_transpose2d(
            x,
            weight,
            bias,
            operation.stride,
            operation.padding,
            operation.output_padding,
            operation.groups,
            operation.dilation,
        )
    return functional.linear(x, weight, bias)


def apply_move(operation: Any, inputs: Sequence[Tensor], size: Picture) -> Tensor:
    """What a node gives that computes no new values, of values or of codes."""
    x = inputs[0]
    match operation:
        case PixelShuffle():
            return functional.pixel_shuffle(x, operation.factor)
        case PixelUnshuffle():
            return functional.pixel_unshuffle(x, operation.factor)
        case Concat():
            return torch.cat(list(inputs), dim=operation.axis)
        case Pad():
            amounts = [_at(amount, size) for amount in operation.amounts]
            return functional.pad(x, amounts, mode=operation.mode)
        case Slice():
            stop = None if operation.stop is None else _at(operation.stop, size)
            part = slice(_at(operation.start, size), stop, operation.step)
            return x[(slice(None),) * (operation.axis % x.ndim) + (part,)]
        case Permute():
            return x.permute(operation.axes)
        case Resize():
            down, across = operation.factors
            return x.repeat_interleave(down, dim=2).repeat_interleave(across, dim=3)
        case Mask():
            return x * _repeated(operation.tile.to(x), x.shape[2], x.shape[3])
        case _:
            # A change of scale changes no values.
            return x


def _limited(x: Tensor, operation: Any) -> Tensor:
    clamp = cast("Clamp", operation.clamp)
    return x if clamp == Clamp() else x.clamp(clamp.lower, clamp.upper)


def _at(size: Size, picture: Picture) -> int:
    return size if isinstance(size, int) else size.at(*picture)


def _repeated(tile: Tensor, height: int, width: int) -> Tensor:
    rows, columns = -(-height // tile.shape[1]), -(-width // tile.shape[2])
    return tile.repeat(1, rows, columns)[:, :height, :width]
