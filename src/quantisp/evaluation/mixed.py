"""The settings of a study that are not uniform: given plans, budgets, weight formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from quantisp.errors import SettingError
from quantisp.evaluation.treatments import looks_at_inputs, plan_of, setting_of_plan
from quantisp.quantization import Budget, Plan, find_format, shared_layers
from quantisp.records import Granularity, Setting

__all__ = ["MixedSettings", "mixed_settings"]


@dataclass(frozen=True, kw_only=True)
class MixedSettings:
    """Settings beside the uniform ones, in the order in which their rows come.

    Args:
        settings: plans first, then budgets, then weight formats.
        plans, budgets: of the settings that have one.
    """

    settings: tuple[Setting, ...]
    plans: Mapping[Setting, Plan]
    budgets: Mapping[Setting, Budget]

    @property
    def methods(self) -> frozenset[str]:
        """All that plans name: what may have to look at calibration inputs."""
        entries = [e for plan in self.plans.values() for e in (plan.default, *plan.layers.values())]
        return frozenset(entry.method for entry in entries if entry.weight_bits is not None)

    @property
    def looks_at_inputs(self) -> bool:
        """Whether calibration inputs are needed: sensitivities are measured on them."""
        return bool(self.budgets) or any(map(looks_at_inputs, self.plans.values()))


def mixed_settings(
    model: nn.Module,
    *,
    ways: Sequence[tuple[str, str]],
    budgets: Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    weight_formats: Sequence[str] = (),
    skip_layers: Sequence[str] = (),
    activation_bits: Sequence[int | None] = (None,),
) -> MixedSettings:
    """Check and name them.

    Args:
        model: the float network.
        ways: method and granularity; each budget is met with each of them.
        budgets: such as ``mean-bits=5``.
        plans: by the names that their rows get.
        weight_formats: of ``WEIGHT_FORMATS``.
        skip_layers: the names of layers that stay in float, but for given plans.
        activation_bits: each budget is met with each of them, too.

    Raises:
        SettingError: a budget, method or format that does not exist, or two rows of one name.
        PlanError: a plan that does not fit the network, or cannot be carried out.
    """
    given = [(setting_of_plan(name, plan, model), plan) for name, plan in (plans or {}).items()]
    met = [
        (_of_budget(budget, method, granularity, width), budget)
        for method, granularity in ways
        for budget in dict.fromkeys(map(Budget.parse, budgets))
        for width in dict.fromkeys(activation_bits)
    ]
    for setting, _ in met:
        shared_layers(model, plan_of(setting, skip_layers))
    formats = [_of_format(name) for name in dict.fromkeys(weight_formats)]
    settings = (*(s for s, _ in given), *(s for s, _ in met), *formats)
    if len(set(settings)) < len(settings):
        twice = next(s for s in settings if settings.count(s) > 1)
        raise SettingError(
            f"expected plans of other names than the budgets, found {twice.label!r} twice: "
            "rename the plan"
        )
    return MixedSettings(settings=settings, plans=dict(given), budgets=dict(met))


def _of_budget(
    budget: Budget, method: str, granularity: str, activation_bits: int | None
) -> Setting:
    return Setting(
        method=method,
        granularity=cast("Granularity", granularity),
        weight_bits=None,
        activation_bits=activation_bits,
        plan=str(budget),
    )


def _of_format(name: str) -> Setting:
    scaled = find_format(name).scaled
    return Setting(method="cast", granularity=scaled, weight_bits=None, weight_format=name)
