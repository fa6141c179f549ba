"""From the simulated network to the same network in integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization.activations.rescaling import Rescale
from quantisp.quantization.activations.steps import Step, TableStep, rescale_of
from quantisp.quantization.activations.weight_steps import WeightStep
from quantisp.quantization.graph.nodes import (
    Add,
    Clamp,
    Conv,
    ConvTranspose,
    Graph,
    Linear,
    Mask,
    Multiply,
    Node,
    Pad,
)
from quantisp.quantization.integer.bounds import worst_accumulators
from quantisp.quantization.integer.network import (
    Accumulator,
    Codes,
    IntegerNetwork,
    NodeIntegers,
    Weights,
)
from quantisp.quantization.model import QuantizedModel
from quantisp.quantization.plan import Plan

__all__ = ["integer_network"]


def integer_network(
    quantized: QuantizedModel, accumulator: Accumulator | None = None
) -> IntegerNetwork:
    """The integers of a quantized network, which compute what it simulates.

    Args:
        quantized: with every tensor and every weight in integers.
        accumulator: how wide sums are kept; None is as the plan says, else as wide as they have
            to be.

    Raises:
        ModelError: something of it is in float, or a sum is wider than planned.
    """
    simulated, plan = quantized.activations, quantized.plan
    if simulated is None:
        raise ModelError(
            "expected a network with activations in integers, found float ones: quantize it with "
            "activation bits"
        )
    nodes: list[Node] = []
    integers: dict[str, NodeIntegers] = {}
    for step in cast("list[Step]", list(simulated.steps)):
        for node, own in _converted(step, plan, integers):
            nodes.append(node)
            integers[node.name] = own
    planned = plan.activations.accumulator_bits
    if accumulator is None and planned is not None:
        accumulator = Accumulator(bits=planned)
    network = IntegerNetwork(
        graph=Graph(nodes=tuple(nodes), output=simulated.graph.output, size=simulated.graph.size),
        integers=integers,
        tie_rule=plan.activations.tie_rule,
        accumulator=accumulator,
    )
    for worst in worst_accumulators(network) if planned is not None else ():
        if worst.bits > (planned or 0):
            raise ModelError(
                f"expected sums of {planned} bits in every layer, as planned, those of layer "
                f"{worst.layer!r} may have {worst.bits}: quantize the network again by its plan"
            )
    return network


def _converted(
    step: Step, plan: Plan, before: Mapping[str, NodeIntegers]
) -> list[tuple[Node, NodeIntegers]]:
    node, quantizer = step.node, step.quantizer
    if quantizer is None:
        raise ModelError(
            f"expected integers everywhere, {node.name!r} at {node.where} gives float: plan its "
            "layer, and the default, with activation_bits"
        )
    low, high = step.limits()
    codes = Codes(
        bits=quantizer.bits, signed=quantizer.signed, low=low, high=high, scale=quantizer.scale
    )
    if node.moves:
        codes = _moved(node, codes, before)
    own = NodeIntegers(codes=codes)
    if isinstance(step, TableStep):
        table = _table(step, before[node.inputs[0]].codes)
        reached = replace(codes, low=int(table.min()), high=int(table.max()))
        own = replace(own, codes=reached, table=table)
    rescale = rescale_of(step)
    if rescale is not None:
        own = replace(own, rescale=_signed(rescale, node))
    if isinstance(step, WeightStep):
        own = replace(own, weights=_weights(step, plan))
    node = _without_limits(node)
    if not isinstance(node.operation, Conv):
        return [(node, own)]
    return _with_own_padding(node, node.operation, own, before[node.inputs[0]].codes)


def _moved(node: Node, codes: Codes, before: Mapping[str, NodeIntegers]) -> Codes:
    """Moves change no codes, and may bring zeros."""
    ranges = [before[name].codes for name in node.inputs]
    zero = [0] if isinstance(node.operation, Pad | Mask) else []
    return replace(
        codes,
        low=min(zero + [r.low for r in ranges]),
        high=max(zero + [r.high for r in ranges]),
    )


def _table(step: TableStep, given: Codes) -> Tensor:
    """The entries for codes that its input can have."""
    table = step.table.cpu().double().round().to(torch.int64)
    return table[given.low - given.qmin : given.high - given.qmin + 1].clone()


def _signed(rescale: Rescale, node: Node) -> Rescale:
    """Multipliers as a matrix; negative for what is subtracted."""
    operation = node.operation
    multiplier = rescale.multiplier.reshape(2 if isinstance(operation, Add) else 1, -1).clone()
    if isinstance(operation, Add) and operation.sign < 0:
        multiplier[1] = -multiplier[1]
    return Rescale(multiplier=multiplier.cpu(), shift=rescale.shift.reshape(-1).cpu())


def _weights(step: WeightStep, plan: Plan) -> Weights:
    node = step.node
    bits = plan.for_layer(node.layer or "").weight_bits
    if bits is None or not step.quantized_weight:
        raise ModelError(
            f"expected integers everywhere, layer {node.layer!r} has float weights: plan it with "
            "weight_bits"
        )
    bias = step.bias.detach().cpu().double().round().to(torch.int64).reshape(-1)
    codes = step.weight.detach().cpu().double().round().to(torch.int32)
    return Weights(
        codes=codes,
        bits=bits,
        bias=bias.expand(_channels(node, codes)).clone(),
        bias_bits=step.settings.bias_bits,
    )


def _channels(node: Node, weight: Tensor) -> int:
    operation = node.operation
    if isinstance(operation, ConvTranspose):
        return weight.shape[1] * operation.groups
    return weight.shape[0]


def _without_limits(node: Node) -> Node:
    operation = node.operation
    if isinstance(operation, Conv | ConvTranspose | Linear | Add | Multiply):
        return replace(node, operation=replace(operation, clamp=Clamp()))
    return node


def _with_own_padding(
    node: Node, operation: Conv, own: NodeIntegers, given: Codes
) -> list[tuple[Node, NodeIntegers]]:
    """Padding in px; where it is not the same on both sides, a node of its own."""
    if not isinstance(operation.padding, str) or own.weights is None:
        return [(node, own)]
    sizes = cast("Any", own.weights.codes.shape[2:])
    total = [
        0 if operation.padding == "valid" else d * (k - 1)
        for d, k in zip(operation.dilation, sizes, strict=True)
    ]
    if all(amount % 2 == 0 for amount in total):
        padded = replace(operation, padding=(total[0] // 2, total[1] // 2))
        return [(replace(node, operation=padded), own)]
    before = [amount // 2 for amount in total]
    down, across = ((b, t - b) for b, t in zip(before, total, strict=True))
    pad = Node(
        name=f"{node.name}_padded",
        operation=Pad(amounts=(*across, *down), mode="constant"),
        inputs=node.inputs,
        where=node.where,
    )
    conv = replace(node, operation=replace(operation, padding=(0, 0)), inputs=(pad.name,))
    wide = replace(given, low=min(given.low, 0), high=max(given.high, 0))
    return [(pad, NodeIntegers(codes=wide)), (conv, own)]
