"""Accumulators: the worst case is exact, and both executors treat alike what does not fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from activation_kit import noise, tiny_dephasenet

from quantisp.errors import RunError, SettingError
from quantisp.quantization import Plan, quantize
from quantisp.quantization.graph.nodes import Conv, Node
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    integer_network,
    run_specification,
    worst_accumulators,
)
from quantisp.quantization.integer.bounds import channel_bounds, signed_bits


@pytest.fixture(scope="module")
def network():
    plan = Plan.uniform(weight_bits=6, activation_bits=6, granularity="channel")
    return integer_network(quantize(tiny_dephasenet(), plan, [noise(2, 1, 16, 16)]))


@pytest.mark.property
def test_the_worst_case_is_reached_and_not_exceeded():
    operation = Conv(layer="c", stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    weights = torch.tensor([[3, -2, 5], [-1, -1, 4]]).view(2, 3, 1, 1)
    node = Node(name="c", operation=operation)
    for low, high in ((-4, 3), (0, 7)):
        least, greatest = channel_bounds(node, weights, low, high)
        sums = torch.tensor(list(product((low, high), repeat=3))) @ weights.view(2, 3).T
        assert torch.equal(least, sums.amin(dim=0))
        assert torch.equal(greatest, sums.amax(dim=0))


def test_the_usual_widths():
    # 576 products of unsigned activations: 26 bits at W8A8, 30 at W10A10, 42 at W16A16.
    for bits, wanted in ((8, 26), (10, 30), (16, 42)):
        greatest = 576 * ((1 << (bits - 1)) - 1) * ((1 << bits) - 1)
        assert signed_bits(-greatest, greatest) == wanted


def test_bits_that_were_seen_are_at_most_the_worst(network):
    executor = IntegerExecutor(network)
    seen = executor.observe([noise(1, 1, 16, 16), noise(1, 1, 8, 8, seed=1)])
    worst = worst_accumulators(network)
    assert [found.node for found in worst] == list(seen)
    assert all(1 < seen[found.node] <= found.bits for found in worst)
    sums = {found.layer: found.products for found in worst}
    assert sums["coarse_subnet.blocks.0.conv1"] == 8 * 9


@pytest.mark.reference
@pytest.mark.parametrize("overflow", ["wrap", "clamp"])
def test_both_executors_wrap_and_clamp_alike(network, overflow):
    x = noise(1, 1, 8, 12, seed=3)
    narrow = network.with_accumulator(Accumulator(bits=12, overflow=overflow))
    names = [node.name for node in network.graph.nodes]
    codes = IntegerExecutor(narrow).run(x, names)
    for name, array in run_specification(narrow, x, names).items():
        assert codes[name].flatten().tolist() == array.values
    # The twin: it does make a difference.
    free = IntegerExecutor(network).run(x, names)
    assert any(not torch.equal(free[name], codes[name]) for name in names)


def test_an_overflow_may_be_an_error(network):
    x = noise(1, 1, 8, 12, seed=3)
    narrow = network.with_accumulator(Accumulator(bits=12))
    with pytest.raises(RunError, match="expected sums of 12 bits"):
        run_specification(narrow, x)
    with pytest.raises(RunError, match="expected sums of 12 bits"):
        IntegerExecutor(narrow)(x)
    enough = max(found.bits for found in worst_accumulators(network))
    wide = network.with_accumulator(Accumulator(bits=enough))
    assert torch.equal(IntegerExecutor(wide)(x), IntegerExecutor(network)(x))


@pytest.mark.usefixtures("without_shape_checks")
def test_there_are_widths_and_ways():
    with pytest.raises(SettingError, match="accumulator bits from 8 to 64, found 4"):
        Accumulator(bits=4)
    with pytest.raises(SettingError, match="expected one of error, wrap, clamp"):
        Accumulator(bits=24, overflow="saturate")
    assert replace(Accumulator(bits=24), overflow="wrap").apply(1 << 23) == -(1 << 23)
