"""The network in integers from quantizers, codes and biases that are known already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from quantisp.quantization.activations.placement import Placement
from quantisp.quantization.activations.settings import ActivationSettings
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.activations.steps import (
    AddStep,
    InputStep,
    MoveStep,
    MultiplyStep,
    RequantizeStep,
    Step,
    TableStep,
)
from quantisp.quantization.activations.tensors import TensorQuantizer
from quantisp.quantization.activations.weight_steps import WeightStep
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.graph.nodes import Add, Input, Multiply, Node, Requantize, Table

__all__ = ["assemble", "step_without_layer"]

_STEPS: dict[type, type[Step]] = {
    Add: AddStep,
    Input: InputStep,
    Multiply: MultiplyStep,
    Requantize: RequantizeStep,
    Table: TableStep,
}


def step_without_layer(
    node: Node, inputs: Sequence[TensorQuantizer | None], settings: ActivationSettings
) -> Step:
    """What computes a node that has no weight, from tensors of these quantizers."""
    return _STEPS.get(type(node.operation), MoveStep)(node, inputs, settings)


def assemble(
    placement: Placement,
    quantizers: Mapping[str, TensorQuantizer | None],
    weights: Mapping[str, QuantizedWeight | Tensor],
    biases: Mapping[str, Tensor],
    settings: ActivationSettings,
) -> SimulatedNetwork:
    """The simulated network, on the CPU.

    Args:
        placement: the graph, and which tensors share a quantizer.
        quantizers: of each group.
        weights: of each layer of the graph: codes and scale, or in float.
        biases: in float, by the node that adds them; of nodes that have one.
        settings: the tie rule, and the width of biases.

    Raises:
        SettingError: a bias that does not fit.
        RunError: scales that no multiplier brings together.
    """
    steps: list[Step] = []
    for node in placement.graph.nodes:
        inputs = [quantizers[placement.group_of[name]] for name in node.inputs]
        if node.layer is None:
            step = step_without_layer(node, inputs, settings)
        else:
            weight, bias = weights[node.layer], biases.get(node.name)
            step = WeightStep(node, inputs, settings, weight=weight, bias=bias)
        step.fit(quantizers[placement.group_of[node.name]])
        steps.append(step)
    return SimulatedNetwork(placement, steps)
