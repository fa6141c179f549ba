"""What each setting of a study does to its network: the plan, also a chosen one, or the format."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.evaluation.store import JobStore
from quantisp.files import make_folder, write_atomically
from quantisp.quantization import (
    SENSITIVITY_BITS,
    STAND_IN,
    ActivationSettings,
    Budget,
    LayerPlan,
    NetworkWork,
    Plan,
    PlanCost,
    allocate,
    find_layers,
    format_cost,
    measure_sensitivity,
    needs_calibration,
    network_method,
    plan_cost,
    shared_layers,
)
from quantisp.records import Granularity, Setting

__all__ = [
    "PLANS_FOLDER",
    "Treatments",
    "file_stem",
    "looks_at_inputs",
    "plan_of",
    "setting_of_plan",
]

PLANS_FOLDER = "plans"


def plan_of(
    setting: Setting,
    skip_layers: Sequence[str] = (),
    activations: ActivationSettings | None = None,
) -> Plan:
    """The plan that a uniform setting stands for, with some layers in float.

    That of a budget, before its widths are chosen, has any. ``activations`` counts where the
    setting gives them bits.
    """
    plan = Plan.uniform(
        weight_bits=SENSITIVITY_BITS[0] if setting.weight_bits is None else setting.weight_bits,
        activation_bits=setting.activation_bits,
        method=setting.method,
        granularity=cast("Granularity", setting.granularity),
    )
    for name in skip_layers:
        plan = plan.with_layer(name, LayerPlan(weight_bits=None))
    if activations is None or setting.activation_bits is None:
        return plan
    return replace(plan, activations=activations)


def setting_of_plan(name: str, plan: Plan, model: nn.Module) -> Setting:
    """The setting that a given plan is shown as: by the method of most weights.

    Raises:
        PlanError: the plan does not fit the network, quantizes none of its layers, or names two
            methods that round layers together.
    """
    shared_layers(model, plan)
    layers, resolved = find_layers(model), plan.resolve(model)
    network_method(resolved)
    weights: dict[tuple[str, Granularity], int] = {}
    for layer, entry in resolved.items():
        if entry.weight_bits is not None:
            key = entry.method, entry.granularity
            weights[key] = weights.get(key, 0) + layers[layer].numel
    method, granularity = max(weights, key=lambda key: (weights[key], key))
    return Setting(
        method=method,
        granularity=granularity,
        weight_bits=None,
        activation_bits=plan.default.activation_bits,
        plan=name,
    )


def looks_at_inputs(plan: Plan) -> bool:
    """Whether a method of the plan needs calibration inputs."""
    entries: Sequence[LayerPlan] = (plan.default, *plan.layers.values())
    return any(e.weight_bits is not None and needs_calibration(e.method) for e in entries)


def file_stem(setting: Setting) -> str:
    """What a setting's files are called, such as ``auto-channel-5-bits``.

    Activations count where a plan was chosen for them.
    """
    label = setting.label.replace("%", "-percent")
    if setting.plan is not None and setting.activation_bits is not None:
        label = f"{label}-a{setting.activation_bits}"
    return re.sub(r"[^\w.=-]", "-", f"{setting.method}-{setting.granularity}-{label}")


@dataclass(kw_only=True)
class Treatments:
    """The plans of a study's settings; those for budgets are chosen when they are asked for.

    Args:
        model: the float network.
        model_sha256: the digest of its weights.
        plans: of settings that name one.
        budgets: of settings that have one.
        skip_layers: the names of layers that stay in float, but for plans that are given.
        activations: how activations are quantized, in settings that give them bits.
        work: of the network; None where nobody counted multiplications.
        calibration: network inputs.
        calibration_sha256: the digest of each picture that they were cut from.
        seed: what they were cut by.
        store: keeps the sensitivity of each layer.
        folder: of the study; chosen plans are written there.
    """

    model: nn.Module
    model_sha256: str
    plans: Mapping[Setting, Plan]
    budgets: Mapping[Setting, Budget]
    skip_layers: Sequence[str]
    activations: ActivationSettings
    work: NetworkWork | None
    calibration: Sequence[Tensor]
    calibration_sha256: Sequence[str]
    seed: int
    store: JobStore
    folder: Path
    chosen: dict[Setting, Plan] = field(default_factory=dict[Setting, Plan])

    def is_open(self, setting: Setting) -> bool:
        """Whether the setting's plan has still to be chosen."""
        return setting in self.budgets and setting not in self.chosen

    def key(self, setting: Setting) -> str:
        """What the setting does, as a text that is the same for the same treatment."""
        if setting.weight_format is not None:
            return json.dumps(
                {"weight_format": setting.weight_format, "float": list(self.skip_layers)}
            )
        return self.plan(setting).to_json()

    def plan(self, setting: Setting) -> Plan:
        """The setting's plan.

        Raises:
            SettingError: it has none, or its budget's is not chosen yet.
        """
        if self.is_open(setting) or setting.weight_format is not None:
            raise SettingError(f"expected a setting with a plan, {setting.label} has none")
        return self.chosen.get(setting) or self.plans.get(setting) or self._plan_of(setting)

    def choose(self, setting: Setting, on_layer: Callable[[int, int], None] | None = None) -> Plan:
        """Measure what is not known of the layers' sensitivity, and choose the setting's plan.

        Raises:
            SettingError: the budget cannot be met, or costs are not known.
        """
        if self.work is None:
            raise SettingError(
                "expected the network's cost beside a budget, found none: count multiplications"
            )
        base = self._plan_of(setting)
        measured = _quickly(base.without_activations())
        names = tuple(shared_layers(self.model, base))
        keys = {name: self._note_key(measured, name) for name in names}
        known = {name: note for name in names if (note := self.store.note(keys[name])) is not None}
        count = len(known)

        def keep(name: str, errors: Mapping[int, float]) -> None:
            nonlocal count
            count += 1
            self.store.put_note(keys[name], {str(bits): error for bits, error in errors.items()})
            if on_layer is not None:
                on_layer(count, len(names))

        sensitivity = measure_sensitivity(
            self.model,
            measured,
            self.calibration,
            known={
                name: {int(bits): float(error) for bits, error in note.items()}
                for name, note in known.items()
            },
            on_layer=keep,
        )
        plan = allocate(self.model, base, sensitivity, self.work, self.budgets[setting])
        self.chosen[setting] = plan
        make_folder(self.folder / PLANS_FOLDER)
        path = self.folder / PLANS_FOLDER / f"{file_stem(setting)}.json"
        write_atomically(path, plan.to_json().encode())
        return plan

    def cost(self, setting: Setting) -> PlanCost | None:
        """What the network costs in a setting, where its multiplications are counted."""
        if self.work is None:
            return None
        if setting.weight_format is not None:
            return format_cost(self.model, setting.weight_format, self.work, self.skip_layers)
        return plan_cost(self.work, self.plan(setting).resolve(self.model))

    def layer_bits(self, setting: Setting) -> dict[str, int | None] | None:
        """The width of each layer, where they differ."""
        if setting.plan is None:
            return None
        resolved = self.plan(setting).resolve(self.model)
        return {name: entry.weight_bits for name, entry in resolved.items()}

    def _plan_of(self, setting: Setting) -> Plan:
        return plan_of(setting, self.skip_layers, self.activations)

    def _note_key(self, measured: Plan, layer: str) -> str:
        named = measured.with_layer(layer, measured.default)
        content = [
            "sensitivity",
            self.model_sha256,
            list(self.calibration_sha256),
            self.seed,
            named.to_json(),
            list(SENSITIVITY_BITS),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _quickly(base: Plan) -> Plan:
    """The plan to measure sensitivities by.

    Methods that look at inputs are stood for by one that does not: it ranks layers nearly alike,
    in a fifteenth of the time.
    """
    if not needs_calibration(base.default.method):
        return base
    return replace(base, default=replace(base.default, method=STAND_IN))
