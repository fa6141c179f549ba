"""Costs of plans: counted multiplications against torch's own counter, and sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quantisp.hardware import mac_cost
from quantisp.quantization import LayerPlan, Plan, count_macs, network_work, plan_cost


@pytest.mark.reference
def test_multiplications_are_those_that_torch_counts(zoo: nn.Module):
    example = torch.rand(2, 1, 16, 20)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        px = zoo(example)[:, 0].numel()
    counts = counter.get_flop_counts()
    found = count_macs(zoo, example)
    assert set(found) == {"head", "depthwise", "grouped", "up", "mix"}
    for name, macs in found.items():
        assert macs == sum(counts[f"Zoo.{name}"].values()) / 2 / px


@pytest.mark.unit
def test_a_layer_that_is_used_twice_counts_twice():
    layer = nn.Conv2d(4, 4, 1)
    once, twice = (
        count_macs(nn.Sequential(*[layer] * uses), torch.empty(1, 4, 8, 8)) for uses in (1, 2)
    )
    assert (once, twice) == ({"0": 16.0}, {"0": 32.0})


@pytest.mark.unit
def test_sums_by_hand():
    model = nn.Sequential(nn.Conv2d(4, 2, 3, bias=False), nn.Linear(5, 3))
    work = network_work(model, {"0": 72.0, "1": 15.0})
    plan = Plan(
        default=LayerPlan(weight_bits=3, granularity="channel"),
        layers={"1": LayerPlan(weight_bits=None)},
    )
    cost = plan_cost(work, plan.resolve(model))
    assert cost.mean_bits == (72 * 3 + 15 * 32) / 87
    # 216 bits and two scales; 15 floats.
    assert cost.weight_bytes == 27 + 8 + 60
    assert cost.bops_per_px == 72 * 3 * 32 + 15 * 32 * 32
    assert cost.mac_energy_pj == pytest.approx(mac_cost(None, None).energy_pj)
    uniform = plan_cost(work, Plan.uniform(weight_bits=3).resolve(model))
    assert uniform.weight_bytes == 27 + 4 + 6 + 4
