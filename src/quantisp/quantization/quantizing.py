"""From a float network and a plan to the quantized network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import ModelError, PlanError, RunError, SettingError
from quantisp.quantization.activations.calibration import simulate_activations
from quantisp.quantization.activations.placement import place_quantizers
from quantisp.quantization.activations.power_of_two import power_of_two_weights
from quantisp.quantization.checkpoints import Checkpoints
from quantisp.quantization.graph import Graph, capture, pad_inside
from quantisp.quantization.layerwise import LayerwiseRounding
from quantisp.quantization.methods import METHODS, NETWORK
from quantisp.quantization.model import QuantizedModel, verify_codes
from quantisp.quantization.network import NetworkTask, RoundedNetwork
from quantisp.quantization.plan import LayerPlan, Plan
from quantisp.quantization.statistics import count_calls, first_inputs
from quantisp.quantization.trial import check_finite, check_inputs
from quantisp.quantization.walk import check_calibration, walk

__all__ = ["capture_for", "network_method", "quantize", "quantize_activations"]


def quantize(
    model: nn.Module,
    plan: Plan,
    calibration: Sequence[Float[Tensor, "_ _ _ _"]] | None = None,
    *,
    seed: int = 0,
    on_layer: Callable[[int, int], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> QuantizedModel:
    """Quantize a network's weights and activations; the network itself is not changed.

    Args:
        model: float32 weights, on any device; the codes are computed on the CPU, so that they
            are the same everywhere.
        plan: what becomes of each layer. A plan without bits gives the float network.
        calibration: network inputs, such as a list of mosaics, for activations and for methods
            that need some; no ground truth. ``rtn`` does not look at them, so they are refused.
        seed: of what methods draw at random; the same seed gives the same codes.
        on_layer: called with the number of layers done, and of all.
        checkpoints: keep parts of a rounding that takes long, so that the same call goes on from
            there after a kill; who gives them removes them.

    Returns:
        The quantized network, in the mode (training or evaluation) and on the devices of ``model``.

    Raises:
        PlanError: the plan does not fit the network, or a layer was not quantized as planned.
        ModelError: weights that are not finite float32, or a layer that inputs do not reach.
        SettingError: calibration that nothing would look at, or too little of it.
        RunError: a method fails, or gave codes that are not in the format or not in the network.
    """
    if isinstance(model, QuantizedModel):
        raise ModelError("expected a float network, found a quantized one: quantize its original")
    resolved = plan.resolve(model)
    check_inputs(calibration)
    together = network_method(resolved)
    inputs = check_calibration(
        resolved,
        calibration,
        least=2 if together == "auto" else 1,
        for_activations=plan.quantizes_activations,
    )
    if inputs:
        check_finite(model, inputs, "the float network")
    if together is None:
        rounded = walk(model, resolved, inputs, on_layer, checkpoints=checkpoints)
    else:
        rounded = _rounded_together(
            together, model, resolved, inputs, seed, on_layer, checkpoints or Checkpoints()
        )
    quantized = QuantizedModel(
        rounded.network,
        plan=plan.without_activations(),
        weights=rounded.weights,
        decisions=rounded.decisions,
    )
    verify_codes(quantized)
    if inputs:
        check_finite(quantized, inputs, "the quantized network")
    if not plan.quantizes_activations:
        return quantized
    return quantize_activations(quantized, model, plan, calibration or ())


def capture_for(
    plans: Sequence[Plan], model: nn.Module, calibration: Sequence[Float[Tensor, "_ _ _ _"]]
) -> Graph | None:
    """The graph that the plans' activations are quantized in; None where all are in float.

    What the graph has no nodes for is found out here, before anything is rounded.

    Args:
        plans: of weights and activations.
        model: the float network.
        calibration: its inputs, as for :func:`quantize_activations`.

    Raises:
        PlanError: a plan does not fit the graph.
        ModelError: the network cannot be captured.
    """
    planned = [plan for plan in plans if plan.quantizes_activations]
    if not planned:
        return None
    graph = capture(model, calibration[0])
    for plan in planned:
        place_quantizers(graph, plan)
    return graph


def quantize_activations(
    quantized: QuantizedModel,
    model: nn.Module,
    plan: Plan,
    calibration: Sequence[Float[Tensor, "_ _ _ _"]],
    *,
    graph: Graph | None = None,
) -> QuantizedModel:
    """Quantize the activations of a network whose weights already are as planned.

    Args:
        quantized: of ``plan.without_activations()``; it is not changed.
        model: the float network that it was made from.
        plan: with bits for activations.
        calibration: network inputs to find the ranges with.
        graph: of ``model``, if it has been captured already.

    Raises:
        PlanError: the weights are those of another plan, or it does not fit the graph.
        ModelError: the network cannot be captured.
        SettingError: no calibration inputs, or a bias or sums that do not fit.
    """
    if quantized.plan != plan.without_activations():
        raise PlanError(
            "expected weights of the same plan, found those of another one: quantize them first"
        )
    if not calibration:
        raise SettingError(
            "expected calibration inputs, for the ranges of activations, found none: pass a list "
            "of network inputs"
        )
    graph = capture(model, calibration[0]) if graph is None else graph
    # Where layers were rounded together, they make up for each other: their means are not the
    # float network's, nor need their channels have its ranges.
    together = network_method(plan.resolve(model)) is not None
    reference = copy.deepcopy(quantized.network if together else model).cpu().eval()
    network = copy.deepcopy(quantized.network)
    weights = quantized.weights()
    if plan.activations.power_of_two:
        weights = power_of_two_weights(place_quantizers(graph, plan), reference, weights, plan)
    calibrated = simulate_activations(
        graph,
        reference,
        network,
        weights,
        plan,
        [pad_inside(reference, x.detach().cpu()) for x in first_inputs(calibration)],
    )
    # On scales of powers of two, or with sums that fit, weights are others than before.
    with torch.no_grad():
        for name, weight in calibrated.weights.items():
            network.get_submodule(name).get_parameter("weight").copy_(weight.dequantize())
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    return QuantizedModel(
        network,
        plan=plan,
        weights=calibrated.weights,
        decisions=(*quantized.decisions, *calibrated.decisions),
        activations=calibrated.simulated.to(device),
    )


def network_method(resolved: Mapping[str, LayerPlan]) -> str | None:
    """The method of a plan that rounds layers together, if there is one.

    Args:
        resolved: what becomes of each layer.

    Raises:
        PlanError: there are two.
    """
    found = {entry.method for entry in resolved.values() if entry.weight_bits is not None}
    together = sorted(found & set(NETWORK))
    if len(together) > 1:
        raise PlanError(
            f"expected one method that rounds layers together, found {' and '.join(together)}: "
            "plan all such layers by one of them"
        )
    return together[0] if together else None


def _rounded_together(
    together: str,
    model: nn.Module,
    resolved: Mapping[str, LayerPlan],
    inputs: Sequence[Tensor],
    seed: int,
    on_layer: Callable[[int, int], None] | None,
    checkpoints: Checkpoints,
) -> RoundedNetwork:
    network = copy.deepcopy(model).eval().requires_grad_(False)
    # Said before anything is rounded, which may take minutes.
    planned = [name for name, entry in resolved.items() if entry.weight_bits is not None]
    count_calls(network, inputs[0], [n for n in planned if resolved[n].method not in METHODS])
    rounding = LayerwiseRounding(resolved=resolved, calibration=inputs, instead_of=together)
    task = NetworkTask(
        model=network,
        formats={
            name: int_format
            for name, entry in resolved.items()
            if entry.method == together and (int_format := entry.weight_format) is not None
        },
        inputs=inputs,
        round_by=rounding.round_by,
        errors_alone=rounding.errors_alone,
        report=on_layer or (lambda _done, _total: None),
        seed=seed,
        checkpoints=checkpoints,
    )
    rounded = NETWORK[together](task)
    unplanned = [n for n in rounded.weights if n not in planned]
    if unplanned:
        raise RunError(
            f"expected layer {unplanned[0]!r} in float, found codes: method {together!r} is at "
            "fault, choose another"
        )
    # In the mode and layout of the model.
    finished = copy.deepcopy(model)
    finished.load_state_dict(rounded.network.state_dict())
    for name in rounded.weights:
        finished.get_submodule(name).get_parameter("weight").requires_grad_(False)
    return replace(rounded, network=finished)
