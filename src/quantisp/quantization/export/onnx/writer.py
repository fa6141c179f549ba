"""An integer network as an ONNX graph: arithmetic in float, codes as a codec has them.

Every node sees its inputs on scales such that what comes out, over the scale of its result, is
``acc * M * 2^-s``: what it is to be rounded from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from quantisp.errors import ModelError
from quantisp.quantization.activations.settings import MAX_ACTIVATION_BITS
from quantisp.quantization.export.onnx.builder import IR_VERSION, OPSET, GraphBuilder
from quantisp.quantization.export.onnx.codecs import (
    QONNX_DOMAIN,
    Codec,
    IntegerCodec,
    QonnxCodec,
    Stored,
)
from quantisp.quantization.export.onnx.layers import add_layer
from quantisp.quantization.export.onnx.moves import add_move
from quantisp.quantization.export.onnx.packages import needed
from quantisp.quantization.export.onnx.scales import ratios, tensor_scales
from quantisp.quantization.export.onnx.sizes import Sizes
from quantisp.quantization.export.shapes import input_channels, size_step, tensor_shapes
from quantisp.quantization.formats import MAX_BITS
from quantisp.quantization.graph import nodes as ops
from quantisp.quantization.graph.nodes import Node
from quantisp.quantization.integer.bounds import worst_accumulators
from quantisp.quantization.integer.network import IntegerNetwork, NodeIntegers

__all__ = ["INPUT", "OUTPUT", "build_onnx", "build_qonnx"]

INPUT, OUTPUT = "input", "output"
Picture = tuple[int, int]
# Of a picture whose number of channels and axes are looked at.
SOME_PX = 192


def build_onnx(network: IntegerNetwork, size: Picture | None = None) -> Any:
    """The network as a model of opset 21.

    Args:
        network: any.
        size: the only height and width that it is for, in a batch of one; None is every one that
            the network runs at, and any batch.

    Returns:
        An ``onnx.ModelProto``. Its ``input`` takes real numbers in [0, 1], its ``output`` is one
        over a whole number times codes; every tensor of the network has its own name.

    Raises:
        ModelError: an operation, a width or a size that it cannot have.
        SettingError: onnx is not installed.
    """
    return _Writer(network, IntegerCodec, size).model()


def build_qonnx(network: IntegerNetwork, size: Picture | None = None) -> Any:
    """As :func:`build_onnx`, with Quant nodes of the true widths.

    Source: Pappalardo et al., QONNX: Representing arbitrary-precision quantized neural networks,
    2022.
    """
    return _Writer(network, QonnxCodec, size).model()


class _Writer:
    """Writes one network."""

    def __init__(self, network: IntegerNetwork, codec: type[Codec], size: Picture | None) -> None:
        _check(network)
        self.network = network
        self.size = network.graph.size if size is None else size
        channels = input_channels(network)
        step = size_step(network, channels)
        some = (-(-SOME_PX // step) * step,) * 2
        self.input_shape = (1, channels, *(self.size or some))
        self.shapes = tensor_shapes(network, self.input_shape)
        names = [node.name for node in network.graph.nodes]
        self.builder = GraphBuilder(names)
        self.source, self.result = self.builder.fresh(INPUT), self.builder.fresh(OUTPUT)
        self.codec = codec(self.builder, network.tie_rule, power_of_two=network.power_of_two)
        self.sizes = Sizes(self.builder, self.source, self.size)
        scales = tensor_scales(network)
        self.stored = {
            node.name: Stored(name=node.name, codes=own.codes, scale=scales[node.name])
            for node, own in network
        }
        self.worst = {found.node: found.bits for found in worst_accumulators(network)}

    def model(self) -> Any:
        onnx = needed("onnx", "export")
        for node, own in self.network:
            self.builder.scope = node.name
            self._node(node, own)
        self.builder.scope = ""
        output = self.stored[self.network.graph.output]
        picture = self.codec.decode(output, 1.0 / output.codes.qmax)
        self.builder.name_result(picture, self.result)
        graph = onnx.helper.make_graph(
            self.builder.nodes,
            "quantisp",
            [self._value(onnx, self.source, self.input_shape)],
            [self._value(onnx, self.result, self.shapes[output.name])],
            self.builder.initializers,
        )
        domains = {QONNX_DOMAIN} & {node.domain for node in self.builder.nodes}
        model = onnx.helper.make_model(
            graph,
            producer_name="quantisp",
            ir_version=IR_VERSION,
            opset_imports=[
                onnx.helper.make_opsetid("", OPSET),
                *(onnx.helper.make_opsetid(domain, 1) for domain in domains),
            ],
        )
        onnx.helper.set_model_props(model, self._facts())
        return model

    def _value(self, onnx: Any, name: str, shape: tuple[int, ...]) -> Any:
        known: list[Any] = list(shape)
        if self.size is None:
            known = ["n", *known[1:]]
            known[2:] = ["height", "width"] if name == self.source else [None] * len(known[2:])
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, known)

    def _facts(self) -> dict[str, str]:
        codes = {
            name: [stored.codes.bits, stored.codes.signed, stored.scale]
            for name, stored in self.stored.items()
        }
        origin = {f"quantisp.{k}": v for k, v in self.network.origin.items()}
        return {
            **origin,
            "quantisp.tie_rule": self.network.tie_rule,
            "quantisp.tensors": json.dumps(codes),
        }

    def _node(self, node: Node, own: NodeIntegers) -> None:
        target = self.stored[node.name]
        if node.moves:
            self._move(node, target)
            return
        kind = type(node.operation)
        if kind not in _COMPUTED:
            raise ModelError(
                f"expected operations that ONNX has, node {node.name!r} at {node.where} is a "
                f"{kind.__name__}: do without it"
            )
        if own.table is not None:
            self._table(node, own, target)
            return
        real = _COMPUTED[kind](self, node, own, target)
        self.codec.encode(real, target, target.scale)

    def _given(self, node: Node) -> list[Stored]:
        return [self.stored[name] for name in node.inputs]

    def _move(self, node: Node, target: Stored) -> None:
        given, scale = self._given(node), self.codec.grid(target)
        real = add_move(
            self.builder,
            self.sizes,
            node,
            [self.codec.decode(tensor, scale) for tensor in given],
            [self.shapes[tensor.name] for tensor in given],
            self.size,
        )
        self.codec.encode_moved(real, target)

    def _table(self, node: Node, own: NodeIntegers, target: Stored) -> None:
        (given,) = self._given(node)
        builder, scale = self.builder, self.codec.grid(target)
        place = self.codec.decode(given, 1.0)
        if given.codes.low:
            place = builder.add("Sub", place, builder.floats(given.codes.low))
        index = builder.add("Cast", place, to=needed("onnx", "export").TensorProto.INT64)
        entries: Any = own.table
        table = builder.floats(entries.numpy() * scale)
        real = builder.add("Gather", table, index, axis=0)
        self.codec.encode_entries(real, target)

    def input(self, _node: Node, _own: NodeIntegers, target: Stored) -> str:
        return self.codec.times(self.source, target.codes.qmax * target.scale)

    def add(self, node: Node, own: NodeIntegers, target: Stored) -> str:
        ratio = ratios(own, node)[:, 0] * target.scale
        parts = [
            self.codec.decode(tensor, float(abs(factor)))
            for tensor, factor in zip(self._given(node), ratio, strict=True)
        ]
        return self.builder.add("Sub" if ratio[1] < 0 else "Add", *parts)

    def multiply(self, node: Node, own: NodeIntegers, target: Stored) -> str:
        first, second = self._given(node)
        scale = float(ratios(own, node)[0, 0]) * target.scale / first.scale
        return self.builder.add(
            "Mul", self.codec.decode(first, first.scale), self.codec.decode(second, scale)
        )

    def requantize(self, node: Node, own: NodeIntegers, target: Stored) -> str:
        (given,) = self._given(node)
        return self.codec.decode(given, float(ratios(own, node)[0, 0]) * target.scale)

    def layer(self, node: Node, own: NodeIntegers, target: Stored) -> str:
        """A convolution or a matrix product, within its accumulator."""
        (given,) = self._given(node)
        accumulator = self.network.accumulator
        # An error gives no codes, so that nothing is to be limited.
        if accumulator is not None and (
            accumulator.overflow == "error" or self.worst[node.name] <= accumulator.bits
        ):
            accumulator = None
        return add_layer(self.codec, node, own, given, target, accumulator)


_COMPUTED: Mapping[type, Callable[[_Writer, Node, NodeIntegers, Stored], str]] = {
    ops.Input: _Writer.input,
    ops.Conv: _Writer.layer,
    ops.ConvTranspose: _Writer.layer,
    ops.Linear: _Writer.layer,
    ops.Add: _Writer.add,
    ops.Multiply: _Writer.multiply,
    ops.Requantize: _Writer.requantize,
    ops.Table: _Writer.requantize,
}


def _check(network: IntegerNetwork) -> None:
    """Widths that the file cannot carry."""
    for node, own in network:
        widths = {"activations": (own.codes.bits, MAX_ACTIVATION_BITS)}
        if own.weights is not None:
            widths["weights"] = (own.weights.bits, MAX_BITS)
        for what, (bits, most) in widths.items():
            if bits > most:
                raise ModelError(
                    f"expected {what} of at most {most} bits, node {node.name!r} at {node.where} "
                    f"has {bits}: plan fewer"
                )
    accumulator = network.accumulator
    if accumulator is None or accumulator.overflow != "wrap":
        return
    for found in worst_accumulators(network):
        if found.bits > accumulator.bits:
            raise ModelError(
                f"expected accumulators that fit or clamp, for ONNX has none that wrap, the sums "
                f"of layer {found.layer!r} may need {found.bits} bits of {accumulator.bits}: "
                "quantize with --overflow clamp, or with fewer bits"
            )
