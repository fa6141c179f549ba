"""Which layer gets how many bits: the least error under a budget, exactly.

One width for each layer, the sum of the layers' errors least, the sum of their costs within the
budget: a multiple-choice knapsack problem (Sinha, Zoltners, "The multiple-choice knapsack problem",
Operations Research 27, 1979), solved as an integer program by HiGHS (Huangfu, Hall, "Parallelizing
the dual revised simplex method", Mathematical Programming Computation 10, 2018) through SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array
from torch import nn

from quantisp.errors import RunError, SettingError
from quantisp.quantization.cost import FLOAT_BITS, LayerWork, NetworkWork
from quantisp.quantization.plan import LayerPlan, Plan
from quantisp.quantization.sensitivity import SENSITIVITY_BITS, Sensitivity, shared_layers

__all__ = ["Budget", "allocate", "check_budget", "choose_widths"]

BudgetKind = Literal["mean-bits", "bytes", "kilobytes", "bops", "bops-percent"]
BUDGETS: tuple[BudgetKind, ...] = get_args(BudgetKind)
EXAMPLES = "mean-bits=5, bytes=1000000, kilobytes=1000, bops=600000 or bops=12.5%"
# What the objective is scaled to, so that the solver's absolute tolerance of 1e-6 is a relative one
# of 1e-10.
SCALED = 1e4
# Sums of decimals may miss a limit by this part of it.
ROUNDED = 1e-12


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a network may cost.

    Args:
        kind: ``mean-bits`` of a weight; ``bytes`` or ``kilobytes`` (1000 bytes) of packed codes
            and their scales; ``bops`` for each output pixel, or ``bops-percent`` of those in
            float32, with float activations counted as 32 bits.
        amount: at most this; positive.

    Raises:
        SettingError: not a positive number.
    """

    kind: BudgetKind
    amount: float

    def __post_init__(self) -> None:
        if not 0.0 < self.amount < math.inf:
            raise _bad_budget(f"{self.kind}={self.amount}")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``mean-bits=5``, ``bytes=1000000``, ``kilobytes=1000``, ``bops=6e5``, ``bops=12.5%``.

        >>> str(Budget.parse("mean-bits=4.50")), Budget.parse("bops=12.5%").kind
        ('mean-bits=4.5', 'bops-percent')

        Raises:
            SettingError: anything else.
        """
        kind, _, amount = text.partition("=")
        if amount.endswith("%"):
            kind, amount = f"{kind}-percent", amount[:-1]
        elif kind == "bops-percent":
            raise _bad_budget(text)
        if kind not in BUDGETS:
            raise _bad_budget(text)
        try:
            return cls(kind=kind, amount=float(amount))
        except ValueError:
            raise _bad_budget(text) from None

    def __str__(self) -> str:
        if self.kind == "bops-percent":
            return f"bops={self.amount:.12g}%"
        return f"{self.kind}={self.amount:.12g}"

    def cost(self, work: LayerWork, plan: LayerPlan) -> float:
        """What one layer takes of :meth:`limit`, in the same unit."""
        match self.kind:
            case "mean-bits":
                return float(work.weights * (plan.weight_bits or FLOAT_BITS))
            case "bytes" | "kilobytes":
                return float(work.weight_bytes(plan))
            case "bops" | "bops-percent":
                return work.bops_per_px(plan)

    def limit(self, work: NetworkWork) -> float:
        """What all layers together may take: weights times bits, bytes, or BOPs."""
        return self.amount * self._unit(work)

    def describe(self, cost: float, work: NetworkWork) -> str:
        """The budget that a cost would just meet, rounded up."""
        digits = 3 if self.kind in ("mean-bits", "kilobytes", "bops-percent") else 0
        least = math.ceil(cost / self._unit(work) * 10**digits - 1e-6) / 10**digits
        return str(replace(self, amount=least))

    def _unit(self, work: NetworkWork) -> float:
        match self.kind:
            case "mean-bits":
                return float(work.weights)
            case "kilobytes":
                return 1000.0
            case "bops-percent":
                return work.macs_per_px * FLOAT_BITS**2 / 100
            case "bytes" | "bops":
                return 1.0


def allocate(
    model: nn.Module,
    plan: Plan,
    sensitivity: Sensitivity,
    work: NetworkWork,
    budget: Budget,
) -> Plan:
    """The plan whose summed sensitivities are least within a budget.

    Args:
        model: the network.
        plan: which layers get widths, and how they are quantized; the others stay as they are.
        sensitivity: the error of each layer, or group of layers that share a weight, at each width.
        work: of the network.
        budget: for the whole network.

    Returns:
        ``plan`` with an entry for every layer that it quantizes; the same arguments give the same.

    Raises:
        SettingError: the budget cannot be met, even at the smallest widths.
    """
    groups = shared_layers(model, plan)
    widths = {first: tuple(sensitivity[first]) for first in groups}
    options, room = _options(model, plan, work, budget, widths)
    chosen = choose_widths([sensitivity[first] for first in groups], options, room)
    resolved, layers = plan.resolve(model), dict(plan.layers)
    for members, bits in zip(groups.values(), chosen, strict=True):
        layers.update((name, replace(resolved[name], weight_bits=bits)) for name in members)
    return replace(plan, layers=layers)


def check_budget(
    model: nn.Module,
    plan: Plan,
    work: NetworkWork,
    budget: Budget,
    widths: Sequence[int] = SENSITIVITY_BITS,
) -> None:
    """Find out before anything is measured whether a budget can be met.

    Raises:
        SettingError: it cannot, even at the smallest widths.
    """
    tried = dict.fromkeys(shared_layers(model, plan), tuple(widths))
    _options(model, plan, work, budget, tried)


def _options(
    model: nn.Module,
    plan: Plan,
    work: NetworkWork,
    budget: Budget,
    widths: Mapping[str, Sequence[int]],
) -> tuple[list[dict[int, float]], float]:
    """What each group of layers costs at each width, and what they may cost together."""
    resolved, groups = plan.resolve(model), shared_layers(model, plan)
    options = [
        {
            bits: sum(
                budget.cost(work.layers[name], replace(resolved[name], weight_bits=bits))
                for name in members
            )
            for bits in widths[first]
        }
        for first, members in groups.items()
    ]
    planned = {name for members in groups.values() for name in members}
    others = (budget.cost(work.layers[n], resolved[n]) for n in resolved if n not in planned)
    fixed = sum(others, 0.0)
    least, limit = fixed + sum(min(costs.values()) for costs in options), budget.limit(work)
    if least > limit * (1 + ROUNDED):
        raise SettingError(
            f"expected a budget of at least {budget.describe(least, work)}, with every layer at "
            f"the smallest width that is tried, found {budget}: allow that much"
        )
    return options, limit - fixed


def choose_widths(
    errors: Sequence[Mapping[int, float]], costs: Sequence[Mapping[int, float]], limit: float
) -> list[int]:
    """One width for each item: the least sum of errors whose sum of costs is at most ``limit``.

    Args:
        errors: of each item, by width; not negative.
        costs: the same items and widths; not negative.
        limit: at least the sum of the least costs.

    Raises:
        RunError: the solver failed.
    """
    options = [_worth_trying(e, c) for e, c in zip(errors, costs, strict=True)]
    bound = sum(e for _, e, _ in _greedy(options, limit))
    # An option that alone is worse than a known solution is in no best one.
    options = [[o for o in item if o[1] <= bound * (1 + 1e-9)] for item in options]
    if all(len(item) == 1 for item in options):
        return [item[0][0] for item in options]
    scale = SCALED / bound if bound > 0.0 else 1.0
    flat = [(number, *option) for number, item in enumerate(options) for option in item]
    objective = np.array([error * scale for _, _, error, _ in flat])
    spent = np.array([cost for *_, cost in flat])
    rows = csr_array(
        (np.ones(len(flat)), ([number for number, *_ in flat], range(len(flat)))),
        shape=(len(options), len(flat)),
    )
    cuts = [LinearConstraint(rows, 1, 1), LinearConstraint(spent[None], -np.inf, limit)]
    while True:
        solved = milp(
            objective,
            integrality=np.ones(len(flat)),
            bounds=Bounds(0, 1),
            constraints=cuts,
            options={"mip_rel_gap": 0.0},
        )
        if solved.x is None:
            raise RunError(f"expected an allocation of widths, the solver says: {solved.message}")
        taken = np.flatnonzero(solved.x > 0.5)
        if spent[taken].sum() <= limit * (1 + ROUNDED):
            return [flat[index][1] for index in taken]
        # Within the solver's tolerance, but not within the budget: exactly this one is excluded.
        cut = np.zeros(len(flat))
        cut[taken] = 1.0
        cuts.append(LinearConstraint(cut[None], -np.inf, len(options) - 1))


Option = tuple[int, float, float]
"""A width, its error and its cost."""


def _worth_trying(errors: Mapping[int, float], costs: Mapping[int, float]) -> list[Option]:
    """The options that no other one beats in error and cost, cheapest first."""
    kept: list[Option] = []
    for bits in sorted(errors, key=lambda bits: (costs[bits], errors[bits], bits)):
        if not kept or errors[bits] < kept[-1][1]:
            kept.append((bits, errors[bits], costs[bits]))
    return kept


def _greedy(options: Sequence[Sequence[Option]], limit: float) -> list[Option]:
    """A good solution: from the cheapest, again and again the step that saves most for its cost."""
    at = [0] * len(options)
    left = limit - sum(item[0][2] for item in options)
    while True:
        best: tuple[float, int, int, float] | None = None
        for number, item in enumerate(options):
            _, error, cost = item[at[number]]
            for index in range(at[number] + 1, len(item)):
                more = item[index][2] - cost
                rate = (error - item[index][1]) / more if more else math.inf
                if more <= left and (best is None or rate > best[0]):
                    best = (rate, number, index, more)
        if best is None:
            return [item[index] for item, index in zip(options, at, strict=True)]
        _, number, index, more = best
        at[number], left = index, left - more


def _bad_budget(text: str) -> SettingError:
    return SettingError(f"expected a budget like {EXAMPLES}, found {text!r}: correct --budget")
