"""Sums with a width of their own: who gets it, who does not, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from activation_kit import Everything, noise, tiny_dephasenet
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization import (
    ActivationSettings,
    LayerPlan,
    Plan,
    capture,
    quantize,
    quantize_activations,
)
from quantisp.quantization.activations.placement import place_quantizers
from quantisp.quantization.activations.steps import TableStep
from quantisp.quantization.graph.nodes import Add, Requantize


class Trunk(nn.Module):
    """Many small residual blocks, whose sums round a trunk over and over."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(12))
        self.tail = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        trunk = self.head(x)
        for block in self.blocks:
            trunk = trunk + 0.1 * torch.relu(block(trunk))
        return self.tail(trunk)


def _plan(sum_bits, activation_bits=8):
    return Plan.uniform(weight_bits=8, activation_bits=activation_bits, sum_bits=sum_bits)


@pytest.fixture(scope="module")
def graph():
    return capture(tiny_dephasenet(), noise(1, 1, 64, 48))


@pytest.mark.property
def test_only_what_is_added_is_wide(graph):
    placed = place_quantizers(graph, _plan(14))
    by_name, users = placed.graph.by_name(), placed.graph.users()
    bits = {name: placed.groups[group].bits for name, group in placed.group_of.items()}
    wide = {name for name, width in bits.items() if width == 14}
    added = {
        name
        for node in placed.graph.nodes
        if isinstance(node.operation, Add)
        for name in node.inputs
    }
    assert added <= wide
    assert added
    for name in wide:
        for reader in (by_name[user] for user in users[name]):
            assert reader.moves or isinstance(reader.operation, Add | Requantize)
    layers = [node for node in placed.graph.nodes if node.layer is not None]
    assert {bits[name] for node in layers for name in node.inputs} == {8, 10}


@pytest.mark.property
def test_sums_that_are_no_wider_change_nothing(graph):
    plain = place_quantizers(graph, _plan(None))
    assert place_quantizers(graph, _plan(8)) == plain
    assert place_quantizers(graph, _plan(6)) == plain


def test_a_layer_of_a_sum_in_float_stays_in_float(graph):
    plan = replace(_plan(14), layers={"tail": LayerPlan(weight_bits=8, activation_bits=None)})
    placed = place_quantizers(graph, plan)
    tail = next(node.name for node in placed.graph.nodes if node.layer == "tail")
    assert placed.groups[placed.group_of[tail]].bits is None


def test_wide_sums_bring_the_output_nearer_to_float():
    network, x = Trunk().eval(), noise(1, 1, 32, 32, seed=3)
    base = quantize(network, Plan.uniform(weight_bits=8))
    errors: dict[int | None, float] = {}
    for sum_bits in (None, 10, 16):
        plan = _plan(sum_bits, activation_bits=6)
        plan = replace(plan, default=replace(base.plan.default, activation_bits=6))
        found = quantize_activations(base, network, plan, [noise(4, 1, 32, 32, seed=2)])
        with torch.inference_mode():
            errors[sum_bits] = float((found(x) - base(x).clamp(0, 1)).square().mean())
    assert errors[16] < errors[10] < 0.5 * errors[None]


def test_a_table_reads_its_input_at_the_width_of_activations():
    # Its entries are as many as its input has codes.
    network = Everything().eval()
    found = quantize(network, _plan(16), [noise(2, 1, 16, 16)])
    assert found.activations is not None
    steps = found.activations.steps
    tables = [step.table for step in steps if isinstance(step, TableStep)]
    assert tables
    assert max(len(table) for table in tables) <= 256


def test_a_width_that_there_is_not_is_refused():
    with pytest.raises(SettingError, match="expected sum bits from 4 to 16, found 17"):
        ActivationSettings(sum_bits=17)
