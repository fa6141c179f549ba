"""Activations of networks whose layers were rounded together, and so make up for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from activation_kit import noise
from torch import nn

from quantisp.quantization import ActivationSettings, Plan, quantize


def network() -> nn.Module:
    """Channels between the two layers differ in range a thousandfold."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    spread = torch.logspace(-1.5, 1.5, 8)
    with torch.no_grad():
        net[0].get_parameter("weight").mul_(spread.reshape(8, 1, 1, 1))
        net[0].get_parameter("bias").mul_(spread)
        net[2].get_parameter("weight").div_(2.0 * spread.reshape(1, 8, 1, 1))
        net[2].get_parameter("bias").fill_(0.5)
    return net.eval()


@pytest.mark.property
@pytest.mark.parametrize("method", ["equalization", "auto"])
def test_biases_stay_with_the_weights_that_they_go_with(method: str):
    """Equal ranges are other ranges than the float network's, so that its means say nothing."""
    float_network = network()
    calibration = [noise(2, 1, 24, 24, seed=seed) for seed in range(4)]
    plan = Plan.uniform(weight_bits=6, granularity="channel", method=method)
    in_integers = Plan(
        default=replace(plan.default, activation_bits=16),
        activations=ActivationSettings(input_bits=16, bias_bits=48),
    )
    x = noise(1, 1, 24, 24, seed=9)
    weights, both = (quantize(float_network, p, calibration) for p in (plan, in_integers))
    with torch.no_grad():
        wanted, found, exact = weights(x), both(x), float_network(x)
    alone = float((wanted - exact).square().mean())
    assert float((found - wanted).square().mean()) < 0.01 * alone
