"""Widths under a budget: exact, deterministic, and one clear error."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from quantisp.errors import SettingError
from quantisp.quantization import (
    Budget,
    LayerPlan,
    Plan,
    allocate,
    measure_sensitivity,
    network_work,
    plan_cost,
)
from quantisp.quantization.allocation import choose_widths

WIDTHS = (2, 3, 4, 8)
PLAN = Plan.uniform(weight_bits=8, method="mse", granularity="channel")


class Twin(nn.Module):
    """Two of its three layers share a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.last = nn.Conv2d(4, 2, 1)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


MACS = {"first": 36.0 * 4, "second": 36.0 * 4, "last": 8.0}
INPUTS = [torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(n)) for n in range(4)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[dict[int, float]], list[dict[int, float]], float]:
    count = draw(st.integers(1, 5))
    size = st.integers(1, 90_000)
    # Of very unlike sizes, as sensitivities are, and now and then equal.
    error = st.one_of(st.sampled_from([0.0, 1e-3]), st.floats(1e-12, 1e-1))
    errors = [{b: draw(error) for b in WIDTHS} for _ in range(count)]
    costs: list[dict[int, float]] = [
        {b: float(b * weights) for b in WIDTHS} for weights in (draw(size) for _ in range(count))
    ]
    share = draw(st.floats(0.0, 1.1))
    least, most = (sum(pick(c.values()) for c in costs) for pick in (min, max))
    return errors, costs, least + share * (most - least)


@pytest.mark.reference
@settings(max_examples=60)
@given(problem=problems())
def test_no_other_choice_is_better(problem):
    errors, costs, limit = problem
    found = choose_widths(errors, costs, limit)
    assert sum(c[b] for c, b in zip(costs, found, strict=True)) <= limit * (1 + 1e-12)
    best = min(
        sum(e[b] for e, b in zip(errors, choice, strict=True))
        for choice in itertools.product(WIDTHS, repeat=len(errors))
        if sum(c[b] for c, b in zip(costs, choice, strict=True)) <= limit * (1 + 1e-12)
    )
    assert math.isclose(
        sum(e[b] for e, b in zip(errors, found, strict=True)), best, rel_tol=1e-8, abs_tol=1e-15
    )


@pytest.mark.unit
def test_greedy_alone_would_not_do():
    # The best first step takes the room that the other two together would use better.
    errors = [{2: 10.0, 3: 0.0}, {2: 9.0, 3: 0.0}, {2: 9.0, 3: 0.0}]
    costs = [{2: 0.0, 3: 6.0}, {2: 0.0, 3: 5.6}, {2: 0.0, 3: 5.6}]
    assert choose_widths(errors, costs, 11.3) == [2, 3, 3]


@pytest.mark.unit
@pytest.mark.parametrize("budget", ["mean-bits=4", "bytes=120", "kilobytes=0.12", "bops=55000"])
def test_the_plan_meets_its_budget_and_shares_a_width(budget: str):
    model = Twin()
    work = network_work(model, MACS)
    measured = measure_sensitivity(model, PLAN, INPUTS, widths=WIDTHS)
    assert set(measured) == {"first", "last"}
    plans = [allocate(model, PLAN, measured, work, Budget.parse(budget)) for _ in range(2)]
    assert plans[0] == plans[1]
    resolved = plans[0].resolve(model)
    assert resolved["first"] == resolved["second"]
    cost = plan_cost(work, resolved)
    kind, _, amount = budget.partition("=")
    spent = {
        "mean-bits": cost.mean_bits,
        "bytes": cost.weight_bytes,
        "kilobytes": cost.weight_bytes / 1000,
        "bops": cost.bops_per_px,
    }[kind]
    assert spent <= float(amount)


@pytest.mark.unit
def test_a_layer_in_float_stays_and_is_paid_for():
    model, work = Twin(), network_work(Twin(), MACS)
    plan = PLAN.with_layer("last", LayerPlan(weight_bits=None))
    measured = measure_sensitivity(model, plan, INPUTS, widths=WIDTHS)
    assert set(measured) == {"first"}
    # 144 weights of 8 bits and 8 of 32.
    mean = (144 * 8 + 8 * 32) / 152
    found = allocate(model, plan, measured, work, Budget(kind="mean-bits", amount=mean))
    assert found.for_layer("last").weight_bits is None
    assert found.for_layer("first").weight_bits == 8


@pytest.mark.unit
@pytest.mark.parametrize(
    ("budget", "least"),
    [("mean-bits=1.9", "mean-bits=2"), ("bops=1%", "bops=6.25%"), ("bytes=5", "bytes=62")],
)
def test_a_budget_that_cannot_be_met_names_the_least(budget: str, least: str):
    model, work = Twin(), network_work(Twin(), MACS)
    measured = {name: dict.fromkeys(WIDTHS, 0.5) for name in ("first", "last")}
    with pytest.raises(SettingError, match=f"at least {least},.*found {budget}: allow"):
        allocate(model, PLAN, measured, work, Budget.parse(budget))
    assert allocate(model, PLAN, measured, work, Budget.parse(least))


@pytest.mark.unit
@pytest.mark.parametrize(
    "text", ["5", "mean-bits", "mean-bits=", "mean-bits=0", "bits=4", "bops=nan", "bytes=-1",
             "bytes=5%", "bops-percent=5", "mean-bits=inf"],
)  # fmt: skip
def test_what_is_no_budget_is_refused(text: str):
    with pytest.raises(SettingError, match="expected a budget like"):
        Budget.parse(text)


@pytest.mark.unit
@pytest.mark.parametrize("text", ["mean-bits=4.5", "bytes=1000", "kilobytes=1.5", "bops=12.5%"])
def test_a_budget_is_written_as_it_was_read(text: str):
    assert str(Budget.parse(text)) == text
