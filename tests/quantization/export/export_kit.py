"""Integer networks of small networks, and requests to export them."""

from __future__ import annotations

from functools import cache

import torch
from activation_kit import Chain, Everything, noise, tiny_dephasenet
from torch import Tensor, nn
from torch.nn import functional

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


class Rest(nn.Module):
    """What ``Everything`` leaves out: strides, dilation, other padding, sizes of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(1, 6, (3, 5), stride=2, padding=(1, 2))
        self.depthwise = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6)
        self.circular = nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular", groups=2)
        self.replicated = nn.Conv2d(6, 6, 3, padding=1, padding_mode="replicate", dilation=1)
        self.even = nn.Conv2d(6, 6, (2, 4), padding="same")
        self.transposed = nn.ConvTranspose2d(
            6, 4, 3, stride=2, padding=1, output_padding=1, groups=2
        )
        self.dilated = nn.ConvTranspose2d(4, 4, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.depthwise(self.strided(x)))
        y = functional.relu(self.even(self.replicated(self.circular(y) - y)))
        z = self.dilated(self.transposed(y))
        joined = torch.cat([z, x], 1) * torch.cat([x, torch.sigmoid(z)], 1)
        tall = torch.cat([joined, joined * 0.5], 2)
        height, width = x.shape[2] // 2, x.shape[3] // 3
        return functional.pixel_shuffle(tall[:, 1:, height:-height, width:], 2)


NETWORKS = {"everything": Everything, "dephasenet": tiny_dephasenet, "chain": Chain, "rest": Rest}


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
