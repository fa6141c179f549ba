"""From calibration inputs to a network in integers, tensor by tensor.

Each tensor's range is found with everything before it already in integers. The float network runs
beside it, for the mean of each channel and for tensors that share one quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import RunError, SettingError
from quantisp.quantization.activations.assembling import step_without_layer
from quantisp.quantization.activations.fitting import fit_weight
from quantisp.quantization.activations.observers import observe
from quantisp.quantization.activations.placement import Group, Placement, place_quantizers
from quantisp.quantization.activations.power_of_two import tensor_units
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.activations.steps import Step
from quantisp.quantization.activations.tensors import TensorQuantizer
from quantisp.quantization.activations.weight_steps import WeightStep
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.graph.execution import Picture, apply_weight, check_size, compute
from quantisp.quantization.graph.nodes import Graph, Node
from quantisp.quantization.plan import Plan

__all__ = ["CalibratedNetwork", "simulate_activations"]


@torch.no_grad()
def simulate_activations(
    graph: Graph,
    reference: nn.Module,
    network: nn.Module,
    weights: Mapping[str, QuantizedWeight],
    plan: Plan,
    calibration: Sequence[Float[Tensor, "_ _ _ _"]],
) -> CalibratedNetwork:
    """Put the plan's quantizers on the feature maps.

    Args:
        graph: of the network.
        reference: the float network.
        network: with the weights and biases to use.
        weights: codes and scales of the layers that have them.
        plan: widths and settings.
        calibration: inputs as the graph takes them.

    Raises:
        PlanError: it names a layer that the graph does not use.
        SettingError: a bias or sums that do not fit, or no calibration inputs.
        RunError: values that are not finite.
    """
    if not calibration:
        raise SettingError(
            "expected calibration inputs, for the ranges of activations, found none: pass a list "
            "of network inputs"
        )
    placement = place_quantizers(graph, plan)
    run = _Calibration(placement, reference, network, weights, plan, calibration)
    steps = [run.step(node) for node in placement.graph.nodes]
    return CalibratedNetwork(
        simulated=SimulatedNetwork(placement, steps), weights=run.weights, decisions=run.decisions
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibratedNetwork:
    """What calibration gives.

    Args:
        simulated: the network in integers.
        weights: codes and scales, of which some may have been changed to fit an accumulator.
        decisions: which ones, in words.
    """

    simulated: SimulatedNetwork
    weights: dict[str, QuantizedWeight]
    decisions: list[str]


class _Calibration:
    """What is known on the way through the graph."""

    def __init__(
        self,
        placement: Placement,
        reference: nn.Module,
        network: nn.Module,
        weights: Mapping[str, QuantizedWeight],
        plan: Plan,
        calibration: Sequence[Tensor],
    ) -> None:
        self.placement = placement
        self.plan = plan
        self.weights = dict(weights)
        self.decisions: list[str] = []
        # The least and the greatest code of each tensor, where it has codes.
        self.ends: dict[str, tuple[int, int] | None] = {}
        self.reference = dict(reference.named_modules())
        self.network = dict(network.named_modules())
        self.calibration = [x.detach().cpu().float() for x in calibration]
        self.sizes = [check_size(placement.graph, x) for x in self.calibration]
        self.last_uses = placement.graph.last_uses()
        # By tensor, then by calibration input: in integers, and of the float network.
        self.codes: dict[str, list[Tensor]] = {}
        self.floats: dict[str, list[Tensor]] = {}
        self.quantizers: dict[str, TensorQuantizer | None] = {}
        self.ahead = self._shared()
        self.units = tensor_units(placement) if plan.activations.power_of_two else {}

    def step(self, node: Node) -> Step:
        """The step of the next node, fitted."""
        step = self._made(node)
        inputs = self._inputs(self.codes, node)
        floats = self._inputs(self.floats, node)
        if isinstance(step, WeightStep) and self.plan.activations.bias_correction:
            self._correct_bias(step, inputs, floats)
        if isinstance(step, WeightStep) and step.in_integers:
            step = self._within_accumulator(step, inputs)
        group = self.placement.group_of[node.name]
        if group not in self.quantizers:
            self.quantizers[group] = self._quantizer(step, inputs)
        step.fit(self.quantizers[group])
        self.ends[node.name] = self._ends(node, step)
        self.codes[node.name] = [step(x, s) for x, s in zip(inputs, self.sizes, strict=True)]
        self.floats[node.name] = [
            self._float(node, x, s) for x, s in zip(floats, self.sizes, strict=True)
        ]
        for name in self.last_uses[node.name]:
            del self.codes[name], self.floats[name]
        return step

    def _made(self, node: Node) -> Step:
        settings = self.plan.activations
        quantizers = [self.quantizers[self.placement.group_of[name]] for name in node.inputs]
        if node.layer is not None:
            layer = self.network[node.layer]
            own = dict(layer.named_parameters(recurse=False))
            weight = self.weights.get(node.layer, own["weight"].detach().cpu())
            bias = own.get("bias")
            return WeightStep(
                node,
                quantizers,
                settings,
                weight=weight,
                bias=None if bias is None else bias.detach().cpu(),
            )
        return step_without_layer(node, quantizers, settings)

    def _made_anew(self, step: WeightStep, weight: QuantizedWeight, bias: Tensor) -> WeightStep:
        return WeightStep(
            step.node, step.input_quantizers, self.plan.activations, weight=weight, bias=bias
        )

    def _ends(self, node: Node, step: Step) -> tuple[int, int] | None:
        if step.quantizer is None:
            return None
        if not node.moves:
            return step.limits()
        # Moves change no codes, and may bring zeros.
        known = [ends for name in node.inputs if (ends := self.ends[name]) is not None]
        return min(0, *(low for low, _ in known)), max(0, *(high for _, high in known))

    def _within_accumulator(self, step: WeightStep, inputs: list[list[Tensor]]) -> WeightStep:
        """The step with weights whose sums fit, if the plan says how wide sums may be."""
        bits, node = self.plan.activations.accumulator_bits, step.node
        ends, name = self.ends[node.inputs[0]], node.layer or ""
        int_format = self.plan.for_layer(name).weight_format
        if bits is None or ends is None or int_format is None:
            return step
        fitted = fit_weight(
            step,
            self.weights[name],
            [x for (x,) in inputs],
            ends=ends,
            bits=bits,
            int_format=int_format,
            corrected=self.plan.activations.bias_correction,
        )
        if fitted is None:
            return step
        if self._uses(name) > 1:
            raise SettingError(
                f"expected a weight that is used once, or sums of {bits} bits without a change, "
                f"found neither in layer {name!r}: give accumulators more bits, or weights fewer"
            )
        self.weights[name] = fitted.weight
        self.decisions.append(
            f"{name}: {fitted.channels} of {len(fitted.bias_shift)} channels changed for sums of "
            f"{bits} bits, at {100 * fitted.loss:.3g}% of the outputs' variance"
        )
        return self._made_anew(step, fitted.weight, step.real_bias + fitted.bias_shift)

    def _uses(self, layer: str) -> int:
        """How many nodes use a layer's weight, under whatever name."""
        own = self.network[layer].get_parameter("weight")
        return sum(
            self.network[node.layer].get_parameter("weight") is own
            for node in self.placement.graph.nodes
            if node.layer is not None
        )

    def _inputs(self, values: Mapping[str, list[Tensor]], node: Node) -> list[list[Tensor]]:
        """What comes into a node, for each calibration input."""
        if not node.inputs:
            return [[x] for x in self.calibration]
        by_tensor = [values[name] for name in node.inputs]
        return [list(inputs) for inputs in zip(*by_tensor, strict=True)]

    def _float(self, node: Node, inputs: list[Tensor], size: Picture) -> Tensor:
        if not node.inputs:
            # Rounded as the quantized network's: what the input loses is not the network's fault.
            quantizer = self.quantizers[node.name]
            x = inputs[0]
            if quantizer is None:
                return x
            return quantizer.encode(x, self.plan.activations.tie_rule) * quantizer.scale
        layer = None if node.layer is None else self.reference[node.layer]
        return compute(node, inputs, layer, size)

    def _correct_bias(
        self, step: WeightStep, inputs: list[list[Tensor]], floats: list[list[Tensor]]
    ) -> None:
        """Move each channel's bias by the mean difference from float, before the limit."""
        own = dict(self.reference[step.node.layer or ""].named_parameters(recurse=False))
        total, count = torch.zeros(1, dtype=torch.float64), 0
        for x, y in zip(inputs, floats, strict=True):
            wanted = apply_weight(step.node.operation, y[0], own["weight"], own.get("bias"))
            apart = (wanted - step.unlimited(x)).double()
            axis = step.channel_axis % apart.ndim
            total = total + apart.sum(dim=[d for d in range(apart.ndim) if d != axis])
            count += apart.numel() // apart.shape[axis]
        step.move_bias(total / count)

    def _quantizer(self, step: Step, inputs: list[list[Tensor]]) -> TensorQuantizer | None:
        group = self.placement.groups[self.placement.group_of[step.node.name]]
        if group.bits is None:
            return None
        if group.unit:
            unit = TensorQuantizer(bits=group.bits, signed=False, scale=1.0)
            return TensorQuantizer(bits=group.bits, signed=False, scale=1.0 / unit.qmax)
        values = [step.real(x, s) for x, s in zip(inputs, self.sizes, strict=True)]
        for name in group.producers[1:]:
            values += self.ahead[name]
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise RunError(
                f"expected finite activations, found NaN or infinity at {step.node.where}: check "
                "the calibration inputs"
            )
        return observe(
            values,
            bits=group.bits,
            signed=group.signed,
            settings=self.plan.activations,
            least_scale=step.least_scale,
            power_of_two_times=self.units.get(self.placement.group_of[step.node.name]),
        )

    def _shared(self) -> dict[str, list[Tensor]]:
        """Values of the float network that a shared quantizer must hold before they are reached."""
        groups: list[Group] = [g for g in self.placement.groups.values() if g.bits is not None]
        wanted = {name for group in groups for name in group.producers[1:]}
        found: dict[str, list[Tensor]] = {name: [] for name in wanted}
        if not wanted:
            return found
        for x, size in zip(self.calibration, self.sizes, strict=True):
            values: dict[str, Tensor] = {}
            for node in self.placement.graph.nodes:
                inputs = [values[name] for name in node.inputs]
                layer = None if node.layer is None else self.reference[node.layer]
                values[node.name] = compute(node, inputs, layer, size) if inputs else x
                if node.name in wanted:
                    found[node.name].append(values[node.name])
                for name in self.last_uses[node.name]:
                    del values[name]
        return found
