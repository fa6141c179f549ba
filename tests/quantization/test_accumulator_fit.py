"""Weights that fit an accumulator: proven by the bounds, and near the least error."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from activation_kit import Everything, noise, tiny_dephasenet
from torch import nn

from quantisp.errors import ModelError, PlanError, SettingError
from quantisp.quantization import (
    Graph,
    Plan,
    QuantizedModel,
    TrainableModel,
    capture,
    quantize,
    quantize_activations,
)
from quantisp.quantization.accumulator_fit import POWERS, Sums, fit_rows
from quantisp.quantization.accumulator_plan import quantize_within
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    integer_network,
    run_specification,
    worst_accumulators,
)

LIMITS = (-7, 7)
CALIBRATION = [noise(2, 1, 16, 16, seed=seed) for seed in range(2)]


def small_sums(bits: int, low: int = 0, high: int = 7, centred: bool = True) -> Sums:
    generator = torch.Generator().manual_seed(4)
    x = torch.randint(low, high + 1, (400, 3), generator=generator).double()
    x[:, 1] = (0.7 * x[:, 0] + 0.3 * x[:, 1]).round()
    mean = x.mean(0) if centred else torch.zeros(3, dtype=torch.float64)
    gram = (x - mean).T @ (x - mean) / len(x)
    return Sums(gram=gram, mean=mean, centre=torch.zeros(1).double(), low=low, high=high, bits=bits)


@pytest.mark.property
@pytest.mark.parametrize("centred", [False, True])
def test_fits_says_what_every_input_says(centred):
    sums = small_sums(7, low=-3, high=5, centred=centred)
    inputs = torch.tensor(list(itertools.product((-3, 0, 5), repeat=3))).double()
    for row in itertools.product((-4, -1, 0, 3), repeat=3):
        codes = torch.tensor([row]).double()
        # The bias follows the codes: what is lost of the mean comes back.
        totals = inputs @ codes[0] + float(sums.centre) - float(codes[0] @ sums.mean)
        up, down = sums.budgets(1.0)
        within = totals.max() - sums.centre <= up and sums.centre - totals.min() <= down
        assert bool(sums.fits(codes, 1.0)) == bool(within)


@pytest.mark.reference
@pytest.mark.parametrize("bits", [5, 6, 7])
@pytest.mark.parametrize("low", [0, -8])
def test_codes_are_near_the_best_there_are(bits, low):
    """All codes of three inputs, tried one by one."""
    sums = small_sums(bits, low=low)
    every = torch.tensor(list(itertools.product(range(-7, 8), repeat=3))).double()
    for row in ((7, -5, 6), (3, 7, -7), (7, 7, 7), (-2, 6, 1)):
        target = torch.tensor([row]).double()
        found = fit_rows(target, sums, LIMITS, shared=False, multiples=(1.0,))
        apart = every - target
        errors = ((apart @ sums.gram) * apart).sum(1)
        able = every[sums.of(torch.ones(1, dtype=torch.bool)).fits(every, 1.0)]
        errors = errors[sums.fits(every, 1.0)]
        if found is None:
            assert len(able) == 0
            continue
        assert bool(sums.fits(found.codes, 1.0))
        assert float(found.error) <= 2.0 * float(errors.min()) + 1e-9


@pytest.mark.unit
def test_what_fits_is_left_alone_and_what_cannot_is_none():
    target = torch.tensor([[1.0, -2.0, 3.0]]).double()
    found = fit_rows(target, small_sums(20), LIMITS, shared=False)
    assert torch.equal(found.codes, target)
    assert found.error.tolist() == [0.0]
    far = replace(small_sums(8), centre=torch.tensor([1e9]).double())
    assert fit_rows(target, far, LIMITS, shared=False) is None


@pytest.mark.unit
def test_a_coarser_scale_is_taken_where_it_errs_less():
    torch.manual_seed(0)
    target = torch.randint(-127, 128, (8, 30)).double()
    x = torch.randint(0, 256, (500, 30)).double()
    sums = Sums(
        gram=(x - x.mean(0)).T @ (x - x.mean(0)) / 500,
        mean=x.mean(0),
        centre=torch.zeros(8).double(),
        low=0,
        high=255,
        bits=17,
    )
    alone = fit_rows(target, sums, (-127, 127), shared=False, multiples=(1.0,))
    found = fit_rows(target, sums, (-127, 127), shared=False, multiples=POWERS)
    together = fit_rows(target, sums, (-127, 127), shared=True, multiples=POWERS)
    assert bool((found.error <= alone.error).all())
    assert float(found.times.max()) > 1.0
    assert len(set(together.times.tolist())) == 1
    for fitted in (alone, found, together):
        for row, times in zip(range(8), fitted.times.tolist(), strict=True):
            one = sums.of(torch.arange(8) == row)
            assert bool(one.fits(fitted.codes[row : row + 1], times))


@cache
def captured(make) -> tuple[nn.Module, Graph]:
    torch.manual_seed(3)
    network = make().eval()
    return network, capture(network, CALIBRATION[0])


def in_integers(make, plan: Plan) -> QuantizedModel:
    network, graph = captured(make)
    weights = quantize(network, plan.without_activations())
    return quantize_activations(weights, network, plan, CALIBRATION, graph=graph)


def planned(bits: int | None, **changes) -> Plan:
    plan = Plan.uniform(weight_bits=8, activation_bits=8, granularity="channel")
    plan = replace(plan, default=replace(plan.default, **changes))
    return replace(plan, activations=replace(plan.activations, accumulator_bits=bits))


def widest(quantized: QuantizedModel) -> int:
    return max(found.bits for found in worst_accumulators(integer_network(quantized)))


@pytest.mark.property
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("make", [tiny_dephasenet, Everything])
def test_a_plan_with_accumulator_bits_fits(make, granularity):
    free = in_integers(make, planned(None, granularity=granularity))
    most = widest(free)
    narrow = in_integers(make, planned(most - 3, granularity=granularity))
    assert widest(narrow) <= most - 3
    assert any("channels changed for sums of" in line for line in narrow.decisions)
    integers = integer_network(narrow)
    assert integers.accumulator == Accumulator(bits=most - 3)
    x = noise(1, 1, 8, 12, seed=8)
    # No sum is an error, whatever comes in; and the codes are the specification's.
    for given in (x, torch.ones_like(x)):
        codes = IntegerExecutor(integers).run(given, [integers.graph.output])
        wanted = run_specification(integers, given)[integers.graph.output].values
        assert codes[integers.graph.output].flatten().tolist() == wanted
    # The weights are those of the codes, and the codes are within their format.
    for name, weight in narrow.weights().items():
        own = narrow.network.get_submodule(name).get_parameter("weight")
        assert torch.equal(own, weight.dequantize())
        assert int(weight.codes.abs().max()) <= 127


@pytest.mark.unit
def test_it_is_better_than_clamping():
    network = tiny_dephasenet()
    x = [noise(1, 1, 32, 32, seed=seed) for seed in (8, 9)]
    free = in_integers(tiny_dephasenet, planned(None))
    bits = 20
    clamped = IntegerExecutor(
        integer_network(free, Accumulator(bits=bits, overflow="clamp")), network
    )
    fitted = in_integers(tiny_dephasenet, planned(bits))
    errors = [
        sum(float((run(y) - free(y)).square().mean()) for y in x)
        for run in (IntegerExecutor(integer_network(fitted), network), clamped)
    ]
    assert errors[0] < errors[1]


@pytest.mark.unit
def test_powers_of_two_stay_powers_of_two():
    plan = planned(20)
    settings = replace(plan.activations, power_of_two=True, input_bits=8)
    found = in_integers(tiny_dephasenet, replace(plan, activations=settings))
    integers = integer_network(found)
    assert integers.power_of_two
    assert widest(found) <= 20


@pytest.mark.unit
def test_widths_are_chosen_by_measured_error():
    plan = planned(None)
    found = quantize_within(tiny_dephasenet(), plan, CALIBRATION, 20)
    assert widest(found) <= 20
    assert found.plan.activations.accumulator_bits == 20
    assert found.decisions[-1].startswith("accumulators of 20 bits: ")
    # The plan alone gives the same network again.
    again = in_integers(tiny_dephasenet, Plan.from_json(found.plan.to_json()))
    assert all(torch.equal(again.codes[name], codes) for name, codes in found.codes.items())
    # Where everything fits, nothing changes.
    wide, free = (in_integers(tiny_dephasenet, planned(width)) for width in (40, None))
    assert all(torch.equal(wide.codes[name], codes) for name, codes in free.codes.items())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(torch.relu(self.conv(x)))


@pytest.mark.unit
def test_what_cannot_be_done_names_the_layer():
    torch.manual_seed(0)
    with pytest.raises(SettingError, match=r"layer '[a-z_.0-9]+' at .* do not in 9 bits"):
        in_integers(tiny_dephasenet, planned(9))
    with pytest.raises(SettingError, match="layer 'conv': give accumulators more bits"):
        in_integers(Twice, planned(12))
    with pytest.raises(SettingError, match="accumulator bits from 8 to 64, found 3"):
        planned(3)
    with pytest.raises(PlanError, match="a whole number or null as accumulator_bits"):
        Plan.from_json(
            planned(20).to_json().replace('"accumulator_bits": 20', '"accumulator_bits": "x"')
        )
    with pytest.raises(SettingError, match="expected activations in integers beside"):
        quantize_within(tiny_dephasenet(), Plan.uniform(weight_bits=8), CALIBRATION, 20)
    with pytest.raises(SettingError, match="weights that are free to move"):
        TrainableModel(in_integers(tiny_dephasenet, planned(20)), "lsq")


@pytest.mark.unit
def test_a_network_that_does_not_keep_its_plan_is_refused():
    free = in_integers(tiny_dephasenet, planned(None))
    forged = QuantizedModel(
        free.network, plan=planned(20), weights=free.weights(), activations=free.activations
    )
    with pytest.raises(ModelError, match=r"sums of 20 bits in every layer, as planned, those of"):
        integer_network(forged)
