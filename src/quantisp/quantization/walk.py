"""The walk through a network: each layer is rounded with the inputs that those before give it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.checkpoints import Checkpoints
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.layer_rounding import round_layer
from quantisp.quantization.layers import find_layers
from quantisp.quantization.methods import CALIBRATED, LOOKS_AT_CURVATURE, METHODS
from quantisp.quantization.network import RoundedNetwork
from quantisp.quantization.plan import LayerPlan
from quantisp.quantization.statistics import (
    FloatInputs,
    LayerStatistics,
    count_calls,
    first_inputs,
    joint_statistics,
    layer_statistics,
)

__all__ = ["check_calibration", "walk"]


def walk(
    model: nn.Module,
    resolved: Mapping[str, LayerPlan],
    calibration: Sequence[Float[Tensor, "_ _ _ _"]],
    on_layer: Callable[[int, int], None] | None = None,
    curvatures: Mapping[str, Tensor] | None = None,
    *,
    apart: bool = False,
    checkpoints: Checkpoints | None = None,
) -> RoundedNetwork:
    """Quantize layer by layer, in the order in which the network uses them.

    Args:
        model: the float network; it is not changed.
        resolved: what becomes of each of its layers; none by a method of whole networks.
        calibration: network inputs; may be empty if no method looks at them.
        on_layer: called with the number of layers done, and of all.
        curvatures: of the layers whose methods look at them; None measures them, which takes half a
            minute.
        apart: layers are not told of each other's rounding, which takes a fraction of the time.
        checkpoints: keep the layers whose methods look at inputs, and their curvatures.

    Raises:
        ModelError: a weight is not float32 or not finite, or a layer is not used by the inputs.
        RunError: a layer's inputs are not finite, or a method fails.
    """
    network, reference = (
        # In the layout that convolutions are fast in.
        nn.utils.convert_conv2d_weight_memory_format(copied, torch.channels_last)
        for copied in (copy.deepcopy(model).eval().requires_grad_(False) for _ in range(2))
    )
    layers = find_layers(network)
    planned = [name for name in layers if resolved[name].weight_format is not None]
    # What looks at no inputs can be rounded first; the rest comes in the order of use.
    looking = [name for name in planned if resolved[name].method in CALIBRATED]
    calls = count_calls(reference, calibration[0], looking) if looking else {}
    names = [*(name for name in planned if name not in calls), *calls]
    felt = [name for name in calls if resolved[name].method in LOOKS_AT_CURVATURE]
    checkpoints = checkpoints or Checkpoints()
    if curvatures is None:
        curvatures = {}
        if felt:
            curvatures = checkpoints.remembered(
                "curvatures", lambda: output_curvatures(reference, felt, calibration)
            )
    inputs = first_inputs(calibration)
    float_inputs = FloatInputs(reference, inputs, calls)
    known = joint_statistics(network, reference, list(calls), inputs) if apart and calls else {}
    looked_at = _Looking(network, float_inputs, known, curvatures)
    weights: dict[str, QuantizedWeight] = {}
    done: dict[int, str] = {}
    for count, name in enumerate(names, start=1):
        layer = layers[name]
        # Layers that share a weight share its codes.
        first = done.setdefault(id(layer.weight), name)
        if first != name:
            weights[name] = weights[first]
            continue
        found = checkpoints.get_weight(f"layer {name}") if name in calls else None
        if found is None:
            found = round_layer(layer, resolved[name], partial(looked_at.statistics, name))
            if name in calls:
                checkpoints.put_weight(f"layer {name}", *found)
        weight, bias = found
        weights[name] = weight
        with torch.no_grad():
            layer.weight.copy_(weight.dequantize())
            if bias is not None:
                layer.module.get_parameter("bias").copy_(bias)
        if on_layer is not None:
            on_layer(count, len(names))
    # In the layers' own order, whatever the order of the walk; and in the model's mode and layout.
    finished = copy.deepcopy(model)
    finished.load_state_dict(network.state_dict())
    for name in weights:
        finished.get_submodule(name).get_parameter("weight").requires_grad_(False)
    return RoundedNetwork(network=finished, weights={n: weights[n] for n in layers if n in weights})


@dataclass(frozen=True)
class _Looking:
    """What methods look at: in which network, by what float inputs, and what is known before."""

    network: nn.Module
    float_inputs: FloatInputs
    known: dict[str, LayerStatistics]
    curvatures: Mapping[str, Tensor]

    def statistics(self, name: str) -> LayerStatistics:
        """Of a layer's inputs as they are now, with its curvature if that was measured."""
        found = self.known.pop(name, None)
        found = found or layer_statistics(self.network, name, self.float_inputs)
        return replace(found, curvature=self.curvatures.get(name))


def check_calibration(
    resolved: Mapping[str, LayerPlan],
    calibration: Sequence[Tensor] | None,
    *,
    least: int,
    for_activations: bool = False,
) -> Sequence[Tensor]:
    """The calibration inputs, if the plan's methods or its activations need some.

    Args:
        resolved: what becomes of each layer.
        calibration: network inputs, or None.
        least: how many there must be.
        for_activations: whether the ranges of activations are to be found.

    Raises:
        SettingError: inputs that nothing would look at, none where some are needed, or too few.
    """
    methods = sorted({plan.method for plan in resolved.values() if plan.weight_bits is not None})
    needed = for_activations or any(method not in METHODS for method in methods)
    if not needed and calibration is not None:
        raise SettingError(
            f"expected no calibration, for the methods of the plan ({', '.join(methods)}) do not "
            "look at it: leave it out"
        )
    found = list(calibration or ())
    if needed and len(found) < least:
        raise SettingError(
            f"expected at least {least} calibration inputs for "
            f"{', '.join([*methods, *(['activations'] if for_activations else [])])}, found "
            f"{len(found)}: pass a list of network inputs"
        )
    for x in found:
        if not bool(torch.isfinite(x).all()):
            raise SettingError("expected finite calibration inputs, found NaN or infinity")
    return found
