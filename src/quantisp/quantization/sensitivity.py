"""How much each layer's width matters: measured, at the network's output.

One layer at a time is quantized, the rest stays in float, and the mean squared difference of the
network's output from float is measured on held-out inputs. The errors of different layers are
nearly uncorrelated, so their squares add up: what Zhou et al., "Adaptive quantization for deep
neural network", AAAI 2018, call the additivity of the measurement. A table of layers and widths is
then all that an allocation needs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import PlanError, RunError, SettingError
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.layer_rounding import round_layer
from quantisp.quantization.layers import Layer, find_layers
from quantisp.quantization.methods import CALIBRATED, LOOKS_AT_CURVATURE, METHODS
from quantisp.quantization.plan import LayerPlan, Plan
from quantisp.quantization.statistics import (
    LayerStatistics,
    count_calls,
    first_inputs,
    float_statistics,
)
from quantisp.quantization.watching import beside

__all__ = [
    "SENSITIVITY_BITS",
    "STAND_IN",
    "Sensitivity",
    "held_out",
    "measure_alone",
    "measure_sensitivity",
    "shared_layers",
]

SENSITIVITY_BITS = tuple(range(2, 9))
"""The widths that are tried: 2 to 8."""

STAND_IN = "mse"
"""What layers are rounded by where the plan's method is none of single layers, such as ``auto``."""

# Of the calibration inputs, one in so many is kept apart to measure the error on.
HELD_OUT = 4

Sensitivity = Mapping[str, Mapping[int, float]]
"""Of each layer, of each width: the mean squared error of the network's output."""


def measure_sensitivity(
    model: nn.Module,
    plan: Plan,
    calibration: Sequence[Float[Tensor, "_ _ _ _"]],
    *,
    widths: Sequence[int] = SENSITIVITY_BITS,
    known: Sensitivity | None = None,
    on_layer: Callable[[str, Mapping[int, float]], None] | None = None,
) -> dict[str, dict[int, float]]:
    """What each layer costs at each width, with all others in float.

    Every layer is rounded by its method of the plan, or by ``STAND_IN``. Its inputs' statistics are
    gathered once, in the float network, on three quarters of the inputs, and serve all widths; the
    error is measured on the others.

    Args:
        model: the float network; it is not changed.
        plan: which layers are quantized, and how; its widths do not count.
        calibration: network inputs, at least one.
        widths: 2 to 16 bits.
        known: from a run before; it is not measured again.
        on_layer: called as each layer is done, with its name and its errors.

    Returns:
        In the network's order. Layers that share a weight are one, under the first one's name.

    Raises:
        PlanError: the plan does not fit the network, or quantizes none of its layers.
        SettingError: no inputs, or no numbers.
        ModelError: a layer that the inputs do not reach.
        RunError: an output is not finite.
    """
    if not calibration or not all(bool(torch.isfinite(x).all()) for x in calibration):
        raise SettingError(
            "expected finite calibration inputs, found none or NaN: pass a list of network inputs"
        )
    found = {name: dict(errors) for name, errors in (known or {}).items()}
    names = tuple(shared_layers(model, plan))
    missing = [name for name in names if not set(widths) <= found.get(name, {}).keys()]
    bench = _Bench.of(model, plan.resolve(model), missing, calibration) if missing else None
    for name in missing:
        if bench is not None:
            found[name] = {bits: bench.error(name, bits) for bits in widths}
        if on_layer is not None:
            on_layer(name, found[name])
    return {name: {bits: found[name][bits] for bits in widths} for name in names}


def measure_alone(
    model: nn.Module,
    resolved: Mapping[str, LayerPlan],
    calibration: Sequence[Float[Tensor, "_ _ _ _"]],
    report: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The mean squared error of the output with each layer alone as planned, all others in float.

    Args:
        model: the float network; it is not changed.
        resolved: of each layer to try its plan; by a method of single layers.
        calibration: network inputs, at least one.
        report: called with the number of layers measured, and of all.

    Raises:
        ModelError: a layer that the inputs do not reach.
        RunError: an output is not finite.
    """
    bench = _Bench.of(model, resolved, tuple(resolved), calibration)
    errors: dict[str, float] = {}
    for name, plan in resolved.items():
        errors[name] = bench.error(name, plan.weight_bits)
        if report is not None:
            report(len(errors), len(resolved))
    return errors


def held_out(calibration: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs to fit to, and every fourth to measure on; a single one is for both."""
    apart = list(calibration[HELD_OUT - 1 :: HELD_OUT] or calibration[-1:])
    fitted = [x for x in calibration if not any(x is other for other in apart)]
    return fitted or apart, apart


def shared_layers(model: nn.Module, plan: Plan) -> dict[str, tuple[str, ...]]:
    """The layers that a plan quantizes: the first owner of each weight, and all of its owners.

    Raises:
        PlanError: the plan does not fit the network, or quantizes none of its layers.
    """
    layers = find_layers(model)
    owners: dict[int, list[str]] = {}
    for name, entry in plan.resolve(model).items():
        if entry.weight_bits is not None:
            owners.setdefault(id(layers[name].weight), []).append(name)
    if not owners:
        raise PlanError(
            "expected a plan that quantizes at least one layer, found none: give it weight bits"
        )
    return {names[0]: tuple(names) for names in owners.values()}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bench:
    """Two copies of the float network, one of which gets one quantized layer at a time."""

    trial: nn.Module
    reference: nn.Module
    layers: Mapping[str, Layer]
    plans: Mapping[str, LayerPlan]
    statistics: Mapping[str, LayerStatistics]
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        plans: Mapping[str, LayerPlan],
        names: Sequence[str],
        calibration: Sequence[Tensor],
    ) -> _Bench:
        trial, reference = (
            nn.utils.convert_conv2d_weight_memory_format(copied, torch.channels_last)
            for copied in (copy.deepcopy(model).eval().requires_grad_(False) for _ in range(2))
        )
        calibration = [beside(reference, x) for x in first_inputs(calibration)]
        fitted, kept_apart = held_out(calibration)
        count_calls(reference, calibration[0], names)
        plans = {name: replace(plans[name], method=_method(plans[name])) for name in names}
        looking = [name for name in names if plans[name].method in CALIBRATED]
        felt = [name for name in names if plans[name].method in LOOKS_AT_CURVATURE]
        moments = float_statistics(reference, looking, fitted)
        curvatures = output_curvatures(reference, felt, fitted, moments) if felt else {}
        with torch.inference_mode():
            outputs = [reference(x) for x in kept_apart]
        return cls(
            trial=trial,
            reference=reference,
            layers=find_layers(trial),
            plans=plans,
            statistics={
                name: replace(found, curvature=curvatures.get(name))
                for name, found in moments.items()
            },
            inputs=kept_apart,
            outputs=outputs,
        )

    def error(self, name: str, bits: int | None) -> float:
        """Of the network's output, with one layer quantized."""
        layer, plan = self.layers[name], replace(self.plans[name], weight_bits=bits)
        own = {key: value.clone() for key, value in layer.module.state_dict().items()}
        try:
            weight, bias = round_layer(layer, plan, lambda: self.statistics[name])
            with torch.no_grad():
                layer.weight.copy_(weight.dequantize())
                if bias is not None:
                    layer.module.get_parameter("bias").copy_(bias)
            with torch.inference_mode():
                errors = [
                    (self.trial(x) - y).double().square().mean()
                    for x, y in zip(self.inputs, self.outputs, strict=True)
                ]
        finally:
            layer.module.load_state_dict(own)
        found = float(torch.stack(errors).mean())
        if not math.isfinite(found):
            raise RunError(
                f"expected finite outputs, found NaN or infinity with layer {name!r} in {bits} "
                "bits: check the network"
            )
        return found


def _method(plan: LayerPlan) -> str:
    return plan.method if plan.method in METHODS or plan.method in CALIBRATED else STAND_IN
