from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.inference import network_cost
from quantisp.models import PRESETS, build_preset

pytestmark = pytest.mark.unit


class Mixed(nn.Module):
    """One of each kind of layer, with costs that can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.down = nn.Conv2d(8, 12, 2, stride=2, bias=False)
        self.mix = nn.Linear(12, 10)
        self.norm = nn.BatchNorm2d(10)
        self.up = nn.ConvTranspose2d(10, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(torch.relu(self.grouped(self.head(x))))
        return self.up(self.norm(self.mix(x.movedim(1, -1)).movedim(-1, 1)))


BY_HAND = {
    # name: parameters, multiplications per output pixel
    "head": (8 * 9 + 8, 8 * 9),
    "grouped": (8 * 2 * 9 + 8, 8 * 2 * 9),
    "down": (12 * 8 * 4, 12 * 8 * 4 / 4),
    "mix": (12 * 10 + 10, 12 * 10 / 4),
    "norm": (20, 0),
    "up": (10 * 3 * 4 + 3, 10 * 3),
}


def test_equals_a_count_by_hand() -> None:
    cost = network_cost(Mixed())
    assert {layer.name: (layer.parameters, layer.macs_per_px) for layer in cost.layers} == BY_HAND
    assert cost.parameters == sum(parameters for parameters, _ in BY_HAND.values())
    assert cost.macs_per_px == sum(macs for _, macs in BY_HAND.values())
    assert [layer.kind for layer in cost.layers][:3] == ["Conv2d", "Conv2d", "Conv2d"]


def test_a_single_layer_is_its_own_network() -> None:
    cost = network_cost(nn.Conv2d(1, 3, 5, padding=2))
    assert cost.macs_per_px == 75
    assert [layer.macs_per_px for layer in cost.layers] == [75]


def test_a_network_that_multiplies_nothing_costs_nothing() -> None:
    class Grey(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.expand(-1, 3, -1, -1)

    cost = network_cost(Grey())
    assert (cost.parameters, cost.macs_per_px, cost.layers) == (0, 0.0, ())


@pytest.mark.parametrize(
    ("preset", "least", "most"),
    [("dephasenet-lite", 135_000, 150_000), ("dephasenet", 1_330_000, 1_900_000)],
)
def test_presets_cost_what_they_may(preset: str, least: int, most: int) -> None:
    net = build_preset(preset, CFAPattern.named("rgbw-kodak"))
    cost = network_cost(net)
    assert least < cost.macs_per_px <= most
    assert sum(layer.macs_per_px for layer in cost.layers) == pytest.approx(cost.macs_per_px)
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters
    assert cost.parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_equal_a_count_by_hand(preset: str) -> None:
    """From the dataflow in the docstring of DePhaseNet, at 1/4 and 1/2 resolution."""
    c = PRESETS[preset]

    def block(channels: int) -> int:
        return 2 * 9 * channels**2 + 2 * channels * (channels // c.gate_reduction)

    fine, coarse = c.fine_channels, c.coarse_channels
    quarter = 9 * 16 * coarse + c.coarse_blocks * block(coarse) + coarse * 4 * fine + 25 * 16 * 48
    half = 9 * 16 * fine + c.fine_blocks * block(fine) + 9 * fine * 12
    cost = network_cost(build_preset(preset, CFAPattern.named("rgbw-kodak")))
    assert cost.macs_per_px == pytest.approx(quarter / 16 + half / 4, rel=1e-12)


def test_the_network_is_not_changed() -> None:
    net = Mixed().train()
    before = copy.deepcopy(net.state_dict())
    network_cost(net)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
