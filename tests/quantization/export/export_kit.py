"""Integer networks of small networks, and requests to export them."""

from __future__ import annotations

from functools import cache

import torch
from activation_kit import Chain, Everything, noise, tiny_dephasenet
from torch import nn

from quantisp.quantization import (
    ActivationSettings,
    LayerPlan,
    Plan,
    capture,
    quantize,
    quantize_activations,
)
from quantisp.quantization.export import ExportRequest, Sample
from quantisp.quantization.integer import Accumulator, IntegerNetwork, integer_network

NETWORKS = {"everything": Everything, "dephasenet": tiny_dephasenet, "chain": Chain}


@cache
def captured(name: str):
    torch.manual_seed(3)
    network = NETWORKS[name]().eval()
    return network, capture(network, noise(1, 1, 16, 16))


def in_integers(
    network: nn.Module, graph, weight_bits: int, activation_bits: int, channels: int = 1, **settings
) -> IntegerNetwork:
    """A network whose ranges are those of noise."""
    plan = Plan(
        default=LayerPlan(
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            granularity="channel" if weight_bits % 4 == 0 else "tensor",
        ),
        activations=ActivationSettings(bias_bits=40, **settings),
    )
    weights = quantize(network, plan.without_activations())
    calibration = [noise(2, channels, 16, 16)]
    return integer_network(quantize_activations(weights, network, plan, calibration, graph=graph))


@cache
def integers(
    name: str,
    weight_bits: int = 8,
    activation_bits: int = 8,
    tie_rule: str = "half_up",
    power_of_two: bool = False,
) -> IntegerNetwork:
    network, graph = captured(name)
    return in_integers(
        network, graph, weight_bits, activation_bits, tie_rule=tie_rule, power_of_two=power_of_two
    )


def request(
    network: IntegerNetwork,
    *size: int,
    accumulator: Accumulator | None = None,
    unverified: bool = False,
) -> ExportRequest:
    """To export a network, verified on noise with extremes in it."""
    x = noise(1, *size, seed=4)
    x[..., :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return ExportRequest(
        network=network.with_accumulator(accumulator),
        sample=Sample(x=x, source="noise"),
        name="small",
        unverified=unverified,
    )
