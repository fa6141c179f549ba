"""The walk: layers that are told of each other's rounding, and layers that are not."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from quantisp.quantization import Plan, find_layers
from quantisp.quantization.plan import LayerPlan
from quantisp.quantization.statistics import (
    FloatInputs,
    count_calls,
    joint_statistics,
    layer_statistics,
)
from quantisp.quantization.walk import walk

pytestmark = pytest.mark.unit

FLOAT = LayerPlan(weight_bits=None)


class Twice(nn.Module):
    """One layer is called twice, and one once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(self.inner(x).relu()).relu())


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(2)
    return Twice().eval()


@pytest.fixture
def inputs() -> list[Tensor]:
    return [torch.rand(2, 3, 12, 10) for _ in range(3)]


def resolved_at(network: nn.Module, method: str) -> Mapping[str, LayerPlan]:
    return Plan.uniform(weight_bits=3, method=method, granularity="channel").resolve(network)


def test_many_layers_at_once_have_the_statistics_of_each(
    network: nn.Module, inputs: list[Tensor]
) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        for layer in find_layers(other).values():
            layer.weight.mul_(1.1)
    names = list(find_layers(network))
    calls = count_calls(network, inputs[0], names)
    found = joint_statistics(other, network, names, inputs)
    for name in names:
        alone = layer_statistics(other, name, FloatInputs(network, inputs, calls))
        for mean in ("gram", "cross", "mean", "float_mean"):
            torch.testing.assert_close(getattr(found[name], mean), getattr(alone, mean))
        assert found[name].count == alone.count == 3 * 2 * 120 * calls[name]


def test_layers_apart_are_rounded_as_each_would_be_alone(
    network: nn.Module, inputs: list[Tensor]
) -> None:
    resolved = resolved_at(network, "quantease-bias")
    together = walk(network, resolved, inputs).weights
    apart = walk(network, resolved, inputs, apart=True).weights
    for name in resolved:
        alone = walk(network, {n: e if n == name else FLOAT for n, e in resolved.items()}, inputs)
        assert torch.equal(apart[name].codes, alone.weights[name].codes)
        assert torch.equal(apart[name].scale, alone.weights[name].scale)
    assert torch.equal(apart["inner"].scale, together["inner"].scale)
    assert not torch.equal(apart["outer"].scale, together["outer"].scale)
