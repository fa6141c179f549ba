"""Layers with weights in ONNX: sums in float, on a scale from which codes are rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantisp.errors import ModelError
from quantisp.quantization.export.onnx.codecs import Codec, Stored
from quantisp.quantization.export.onnx.scales import ratios
from quantisp.quantization.graph.nodes import Conv, ConvTranspose, Linear, Node
from quantisp.quantization.integer.network import Accumulator, NodeIntegers, Weights

__all__ = ["add_layer"]

TYPED_BIAS = 1 << 31


def add_layer(
    codec: Codec,
    node: Node,
    own: NodeIntegers,
    given: Stored,
    target: Stored,
    accumulator: Accumulator | None,
) -> str:
    """A convolution or a matrix product, plus its bias, as floats.

    Args:
        codec: how codes are written.
        node, own: the layer.
        given, target: what it takes and gives.
        accumulator: that saturates; None is as wide as it has to be.

    Raises:
        ModelError: it has no weights, or no multipliers.
    """
    if own.weights is None:
        raise ModelError(f"expected weights in node {node.name!r} at {node.where}, found none")
    ratio = ratios(own, node)[0]
    weights, bias = own.weights.codes.numpy(), own.weights.bias.numpy()
    empty = ratio == 0
    if empty.any():
        # A channel whose ratio is 0 gives 0, whatever its weights are.
        ratio = np.where(empty, 1.0, ratio)
        weights, bias = _without(node, weights, bias, empty)
    # Of one step of the accumulator; of each channel's, where they differ.
    scale: Any = ratio * target.scale if len(ratio) > 1 else float(ratio[0]) * target.scale
    real = _sums(codec, node, own.weights, (weights, bias), given, scale)
    if accumulator is None:
        return real
    ends = (
        codec.builder.floats(_spread(end * scale, node))
        for end in (accumulator.least, accumulator.greatest)
    )
    least, greatest = ends
    return codec.builder.add("Min", codec.builder.add("Max", real, least), greatest)


def _sums(codec: Codec, node: Node, widths: Weights, values: Any, given: Stored, scale: Any) -> str:
    """Bias plus products."""
    operation, builder, (codes, bias) = node.operation, codec.builder, values
    per_channel = np.ndim(scale) > 0
    x = codec.decode(given, given.scale)
    own = scale / given.scale
    if isinstance(operation, Linear):
        weight = codec.weight(codes.T, widths.bits, own, 1 if per_channel else None)
        product = builder.add("MatMul", x, weight)
        return builder.add("Add", product, codec.bias(bias, widths.bias_bits, scale))
    if not isinstance(operation, Conv | ConvTranspose):
        raise ModelError(
            f"expected operations that ONNX has, node {node.name!r} at {node.where} is a "
            f"{type(operation).__name__}: do without it"
        )
    kind, fields = type(operation).__name__, _fields(operation, codes.shape[2:])
    transposed = isinstance(operation, ConvTranspose)
    if transposed and operation.groups > 1 and per_channel:
        # Scales of output channels lie along no axis of its weights.
        weight = codec.weight(codes, widths.bits, 1.0 / given.scale, None)
        sums = builder.add(kind, x, weight, **fields)
        scaled = builder.add("Mul", sums, builder.floats(_spread(scale, node)))
        return builder.add("Add", scaled, builder.floats(_spread(bias * scale, node)))
    axis = None if not per_channel else 1 if transposed else 0
    weight = codec.weight(codes, widths.bits, own, axis)
    if np.abs(bias).max() >= TYPED_BIAS:
        # ONNX Runtime may put what a layer adds into 32 bits, whatever it is.
        sums = builder.add(kind, x, weight, **fields)
        return builder.add("Add", sums, builder.floats(_spread(bias * scale, node)))
    return builder.add(kind, x, weight, codec.bias(bias, widths.bias_bits, scale), **fields)


def _fields(operation: Conv | ConvTranspose, kernel: tuple[int, ...]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": list(operation.stride),
        "pads": [*operation.padding, *operation.padding],
        "dilations": list(operation.dilation),
        "group": operation.groups,
    }
    if isinstance(operation, ConvTranspose):
        fields["output_padding"] = list(operation.output_padding)
    return fields


def _spread(values: Any, node: Node) -> Any:
    """Numbers for each channel beside what a layer gives; one stays one."""
    if not np.ndim(values):
        return values
    return np.reshape(values, (-1,) if isinstance(node.operation, Linear) else (1, -1, 1, 1))


def _without(node: Node, codes: Any, bias: Any, empty: Any) -> tuple[Any, Any]:
    """Weights and biases with zeros in some output channels; one flag is for all."""
    bias = np.where(empty, 0, bias)
    if len(empty) == 1:
        return codes * 0, bias
    if not isinstance(node.operation, ConvTranspose):
        return np.where(empty.reshape(-1, *[1] * (codes.ndim - 1)), 0, codes), bias
    groups = node.operation.groups
    owners = np.repeat(empty.reshape(groups, -1), codes.shape[0] // groups, axis=0)
    return np.where(owners[:, :, None, None], 0, codes), bias
