"""A plan whose sums fit an accumulator: weights that fit, and activations as wide as is best.

With narrower activations a sum has room for more of the weights. Which is the less harmful is
measured: the widths of what overflowing layers take (outputs of layers, or sums and products) go
down bit by bit as long as the network's output, on calibration inputs that nothing is fitted to,
comes nearer to float. At each width weights are fitted, as ``accumulator_fit`` says. In the end
everything is calibrated on all inputs again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization.activations.settings import MIN_ACTIVATION_BITS
from quantisp.quantization.checkpoints import Checkpoints
from quantisp.quantization.graph import Graph, capture
from quantisp.quantization.integer.bounds import worst_accumulators
from quantisp.quantization.integer.conversion import integer_network
from quantisp.quantization.model import QuantizedModel
from quantisp.quantization.plan import Plan
from quantisp.quantization.quantizing import quantize, quantize_activations
from quantisp.quantization.sensitivity import held_out
from quantisp.quantization.statistics import first_inputs

__all__ = ["quantize_within"]

# Widths are tried on some of the inputs, and what is chosen is calibrated on all.
TRIAL_INPUTS = 3


def quantize_within(
    model: nn.Module,
    plan: Plan,
    calibration: Sequence[Float[Tensor, "_ _ _ _"]],
    accumulator_bits: int,
    *,
    seed: int = 0,
    on_layer: Callable[[int, int], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> QuantizedModel:
    """Quantize a network so that no input makes a sum that an accumulator does not hold.

    Args:
        model: as for :func:`~quantisp.quantization.quantize`.
        plan: with bits for all weights and activations; the widest that there may be.
        calibration: network inputs.
        accumulator_bits: 8 to 64, signed.
        seed: of what methods draw at random.
        on_layer: called with the number of layers rounded, and of all.
        checkpoints: as for ``quantize``.

    Returns:
        The network, whose ``plan`` says what was chosen, and whose ``decisions`` say why.

    Raises:
        SettingError: a layer cannot be made to fit, which is named.
        PlanError, ModelError, RunError: as of ``quantize``.
    """
    if not plan.quantizes_activations:
        raise SettingError(
            "expected activations in integers beside an accumulator's width, found float ones: "
            "plan activation bits"
        )
    settings = replace(plan.activations, accumulator_bits=None)
    free = replace(plan, activations=settings)
    inputs = first_inputs(calibration)
    rounded = quantize(
        model,
        free.without_activations(),
        calibration if _looks(model, free) else None,
        seed=seed,
        on_layer=on_layer,
        checkpoints=checkpoints,
    )
    bench = _Bench.of(model, rounded, inputs)
    fitting = _Feeding.of(bench.network(free), accumulator_bits)
    chosen, lines = _narrowed(free, fitting, bench, accumulator_bits)
    found = bench.network(chosen, whole=True)
    found.decisions = (*found.decisions, *lines)
    return found


def _looks(model: nn.Module, plan: Plan) -> bool:
    from quantisp.quantization.methods import needs_calibration

    planned = plan.resolve(model).values()
    return any(e.weight_bits is not None and needs_calibration(e.method) for e in planned)


@dataclass(frozen=True, kw_only=True)
class _Feeding:
    """What overflowing layers take.

    Args:
        layers: whose outputs they are.
        others: whether some are sums, products or tables.
        every: all layers of the network.
    """

    layers: tuple[str, ...]
    others: bool
    every: tuple[str, ...]

    @classmethod
    def of(cls, quantized: QuantizedModel, bits: int) -> _Feeding:
        network = integer_network(quantized)
        nodes = network.graph.by_name()
        names: dict[str, None] = {}
        others = False
        for worst in worst_accumulators(network):
            waiting = list(nodes[worst.node].inputs) if worst.bits > bits else []
            while waiting:
                node = nodes[waiting.pop()]
                if node.moves:
                    waiting += node.inputs
                elif node.layer is not None:
                    names[node.layer] = None
                else:
                    others = others or bool(node.inputs)
        every = [node.layer for node in network.graph.nodes if node.layer is not None]
        return cls(layers=tuple(names), others=others, every=tuple(dict.fromkeys(every)))

    def plan(self, plan: Plan, widths: tuple[int, int], bits: int) -> Plan:
        """The plan with other widths of sums, products and tables, and of layers' outputs."""
        sums, outputs = widths
        settings = replace(plan.activations, accumulator_bits=bits)
        whole = plan.default.activation_bits
        if widths == (whole, whole):
            return replace(plan, activations=settings)
        layers = dict(plan.layers)
        for name in self.every:
            entry = plan.for_layer(name)
            if name in self.layers:
                entry = replace(
                    entry, activation_bits=min(outputs, entry.activation_bits or outputs)
                )
            layers[name] = entry
        default = replace(plan.default, activation_bits=sums)
        # The output stays as wide as it is.
        width = plan.activations.output_width(whole or sums)
        return Plan(
            default=default,
            layers={name: entry for name, entry in layers.items() if entry != default},
            activations=replace(settings, output_bits=width),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """A network with rounded weights, its graph, and inputs to calibrate and to measure with."""

    model: nn.Module
    rounded: QuantizedModel
    graph: Graph
    every: Sequence[Tensor]
    inputs: Sequence[Tensor]
    apart: Sequence[Tensor]
    wanted: Sequence[Tensor]

    @classmethod
    def of(cls, model: nn.Module, rounded: QuantizedModel, inputs: Sequence[Tensor]) -> _Bench:
        fitted, apart = held_out(inputs[:TRIAL_INPUTS])
        reference = copy.deepcopy(model).cpu().eval()
        with torch.inference_mode():
            wanted = [reference(x).clamp(0.0, 1.0) for x in apart]
        return cls(
            model=model,
            rounded=rounded,
            graph=capture(model, inputs[0]),
            every=inputs,
            inputs=fitted,
            apart=apart,
            wanted=wanted,
        )

    def network(self, plan: Plan, *, whole: bool = False) -> QuantizedModel:
        """The network by a plan of activations; calibrated on all inputs, or on most of them."""
        inputs = self.every if whole else self.inputs
        return quantize_activations(self.rounded, self.model, plan, inputs, graph=self.graph)

    def error(self, plan: Plan) -> float:
        """Of the output to float, on inputs that the network was not calibrated on."""
        quantized = self.network(plan).eval()
        with torch.inference_mode():
            errors = [
                (quantized(x).clamp(0.0, 1.0) - y).double().square().mean()
                for x, y in zip(self.apart, self.wanted, strict=True)
            ]
        return float(torch.stack(errors).mean())


def _narrowed(
    plan: Plan, fitting: _Feeding, bench: _Bench, bits: int
) -> tuple[Plan, tuple[str, ...]]:
    """Widths by descent: of the steps that there are, the one that helps most, while one does."""
    start = plan.default.activation_bits or 0
    errors: dict[tuple[int, int], float] = {}
    impossible: SettingError | None = None

    def error(sums: int, outputs: int) -> float:
        nonlocal impossible
        key = (sums, outputs)
        if key not in errors:
            try:
                errors[key] = bench.error(fitting.plan(plan, key, bits))
            except SettingError as found:
                impossible, errors[key] = found, math.inf
        return errors[key]

    here = (start, start)
    while True:
        sums, outputs = here
        steps = [(sums - 1, outputs)] if fitting.others else []
        steps += [(sums, outputs - 1)] if fitting.layers else []
        steps = [step for step in steps if min(step) >= MIN_ACTIVATION_BITS]
        best = min(steps, key=lambda step: error(*step), default=here)
        # As long as nothing fits, narrower widths are all that may help.
        if best == here or (error(*best) >= error(*here) and math.isfinite(error(*here))):
            break
        here = best
    if not math.isfinite(error(*here)) and impossible is not None:
        raise impossible
    return fitting.plan(plan, here, bits), _lines(errors, here, fitting, bits)


def _lines(
    errors: Mapping[tuple[int, int], float],
    chosen: tuple[int, int],
    fitting: _Feeding,
    bits: int,
) -> tuple[str, ...]:
    def named(key: tuple[int, int]) -> str:
        sums, outputs = key
        parts = [f"sums A{sums}"] if fitting.others else []
        parts += [f"outputs of {len(fitting.layers)} layers A{outputs}"] if fitting.layers else []
        return ", ".join(parts)

    tried = "; ".join(f"{named(key)}: {error:.3g}" for key, error in errors.items())
    return (f"accumulators of {bits} bits: {named(chosen)}; squared error to float of {tried}",)
