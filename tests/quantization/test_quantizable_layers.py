from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from quantisp.errors import PlanError
from quantisp.quantization import LayerPlan, Plan, find_layers, quantize

pytestmark = pytest.mark.unit


class Positional(nn.Module):
    """A network with a bare parameter beside a layer that can be quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)
        self.offset = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) + self.offset


def test_layers_and_their_output_axes(zoo: nn.Module):
    found = {name: (layer.kind, layer.output_axis) for name, layer in find_layers(zoo).items()}
    assert found == {
        "head": ("Conv2d", 0),
        "depthwise": ("Conv2d", 0),
        "grouped": ("Conv2d", 0),
        "up": ("ConvTranspose2d", 1),
        "mix": ("Linear", 0),
    }


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(2, 2, 3), nn.Conv3d(2, 2, 3), nn.Embedding(4, 4), nn.LayerNorm((4, 4))]
)
def test_weights_that_no_quantizer_knows_are_named(layer: nn.Module):
    network = nn.Sequential(nn.Linear(4, 4), layer)
    expected = rf"layer '1' is a {type(layer).__name__} with weight.*, which no quantizer knows"
    with pytest.raises(PlanError, match=expected):
        quantize(network, Plan.uniform())
    plan = Plan.uniform().with_layer("1", LayerPlan(weight_bits=None))
    quantized = quantize(network, plan)
    assert list(quantized.codes) == ["0"]
    assert quantized.coverage["1"].weight_bits is None
    assert "no quantizer knows" in quantized.coverage["1"].reason


def test_bare_parameter_is_named():
    with pytest.raises(PlanError, match="layer '' is a Positional with offset"):
        quantize(Positional(), Plan.uniform())
    plan = Plan.uniform().with_layer("", LayerPlan(weight_bits=None))
    assert list(quantize(Positional(), plan).codes) == ["mix"]


def test_reparametrised_weight_is_not_mistaken_for_a_plain_one():
    network = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(PlanError, match="which no quantizer knows"):
        quantize(network, Plan.uniform())


def test_grouped_transposed_convolution_has_no_channel_axis():
    network = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2))
    with pytest.raises(PlanError, match="ConvTranspose2d of 2 groups"):
        quantize(network, Plan.uniform(granularity="channel"))
    assert quantize(network, Plan.uniform(granularity="tensor")).scales["0"].ndim == 0


def test_layer_that_is_used_twice_is_one_layer():
    layer = nn.Linear(3, 3)
    quantized = quantize(nn.Sequential(layer, nn.ReLU(), layer), Plan.uniform(weight_bits=4))
    assert list(quantized.codes) == ["0"]
    assert quantized.network[0] is quantized.network[2]


def test_layers_that_share_a_weight_are_treated_alike():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    quantized = quantize(network, Plan.uniform(weight_bits=4))
    assert torch.equal(quantized.codes["0"], quantized.codes["1"])
    assert quantized.network[0].weight is quantized.network[1].weight
    for other in (LayerPlan(weight_bits=5), LayerPlan(weight_bits=None)):
        with pytest.raises(PlanError, match="layers '0' and '1' share"):
            quantize(network, Plan.uniform(weight_bits=4).with_layer("1", other))


def test_shared_weight_with_two_channel_axes_is_refused():
    network = nn.ModuleList([nn.Conv2d(3, 3, 2), nn.ConvTranspose2d(3, 3, 2)])
    network[1].weight = network[0].weight
    assert quantize(network, Plan.uniform(granularity="tensor")).codes
    with pytest.raises(PlanError, match="along the same axis"):
        quantize(network, Plan.uniform(granularity="channel"))
