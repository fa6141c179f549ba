"""Scales that differ by powers of two: multipliers are shifts, and little is lost."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from activation_kit import Chain, noise, tiny_dephasenet
from torch import nn

from quantisp.errors import PlanError, SettingError
from quantisp.quantization import (
    ActivationSettings,
    Graph,
    LayerPlan,
    Plan,
    QuantizedModel,
    capture,
    quantize,
    quantize_activations,
)
from quantisp.quantization.activations.powers import nearest_powers
from quantisp.quantization.activations.rescaling import choose_rescale


def plan(weight_bits=8, activation_bits=8, method="mse", **settings) -> Plan:
    return Plan(
        default=LayerPlan(
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            method=method,
            granularity="channel",
        ),
        activations=ActivationSettings(power_of_two=True, **settings),
    )


@cache
def graph() -> Graph:
    return capture(tiny_dephasenet(), noise(1, 1, 16, 16))


def by(some: Plan) -> QuantizedModel:
    weights = quantize(tiny_dephasenet(), some.without_activations())
    calibration = [noise(2, 1, 16, 16)]
    return quantize_activations(weights, tiny_dephasenet(), some, calibration, graph=graph())


@cache
def quantized() -> QuantizedModel:
    return by(plan(tie_rule="half_even"))


def test_every_multiplier_is_a_power_of_two_and_most_are_one():
    ones = 0
    for step in quantized().activations.steps:
        rescale = getattr(step, "rescale", None)
        if rescale is not None:
            multiplier = rescale.multiplier
            assert bool((multiplier & (multiplier - 1) == 0).all())
            assert int(rescale.shift.min()) >= 1
            ones += int((multiplier == 1).all())
    assert ones > 20


@pytest.mark.property
def test_the_real_ratios_are_those_of_the_scales():
    for step in quantized().activations.steps:
        if getattr(step, "rescale", None) is not None:
            wanted = step.scales() / step.quantizer.scale
            torch.testing.assert_close(step.rescale.ratio(), wanted, rtol=1e-6, atol=0)


def test_weights_are_on_their_new_scales():
    found = quantized()
    for name, weight in found.weights().items():
        assert torch.equal(weight.dequantize(), found.network.get_submodule(name).weight)
    inner = found.scales["coarse_subnet.blocks.0.conv2"].double().log2()
    assert torch.equal(inner, inner.round())
    # The head reads codes of 1/1023, and makes up for it.
    head = (found.scales["coarse_head"].double() / 1023).log2()
    torch.testing.assert_close(head, head.round(), atol=1e-6, rtol=0)


@pytest.mark.property
def test_float32_is_exact_while_sums_stay_below_2_24():
    found, x = quantized(), noise(1, 1, 16, 24, seed=3)
    names = [node.name for node in found.activations.graph.nodes]
    single = found.activations.run(x, names)
    double = by(plan(tie_rule="half_even")).activations.double()
    for name, values in double.run(x.double(), names).items():
        assert torch.equal(single[name].double(), values)


def test_it_costs_less_than_a_bit():
    x = noise(1, 1, 16, 24, seed=3)
    with torch.no_grad():
        reference = tiny_dephasenet()(x)

        def error(some: Plan) -> float:
            return float((by(some)(x) - reference.clamp(0, 1)).square().mean())

        free = Plan(default=plan(7, 7).default)
        assert error(plan()) < error(free)


def test_the_nearest_powers():
    below, above = nearest_powers(torch.tensor([0.3, 0.25, 3.0]), 1.0)
    assert below.tolist() == [0.25, 0.25, 2.0]
    assert above.tolist() == [0.5, 0.25, 4.0]


def test_multipliers_are_as_small_as_they_can_be():
    found = choose_rescale(torch.tensor([2.0**-3, 2.0**-7]).double(), power_of_two=True)
    assert (found.multiplier.tolist(), int(found.shift)) == ([16, 1], 7)
    found = choose_rescale(torch.tensor([4.0]).double(), power_of_two=True)
    assert (found.multiplier.tolist(), int(found.shift)) == ([8], 1)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Chain()

    def forward(self, x):
        return x - self.body(x)


def test_grids_that_do_not_go_together_are_refused():
    torch.manual_seed(1)
    network, x = Residual().eval(), [noise(1, 1, 8, 8)]
    with pytest.raises(SettingError, match="plan output_bits as input_bits"):
        quantize(network, plan(), x)
    found = quantize(network, plan(output_bits=10), x)
    assert found(x[0]).shape == x[0].shape


def test_methods_that_look_at_inputs_are_refused():
    with pytest.raises(PlanError, match="a method that looks at weights alone"):
        quantize(tiny_dephasenet(), plan(method="gptq"), [noise(2, 1, 16, 16)])
