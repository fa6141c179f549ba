from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from quantisp.errors import PlanError
from quantisp.quantization import (
    LayerPlan,
    Plan,
    find_layers,
    method_names,
    needs_calibration,
    quantize,
)
from quantisp.quantization.layers import over_channels
from quantisp.quantization.methods import LOOKS_AT_CURVATURE, NETWORK

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


class Standardised(nn.Conv2d):
    """Multiplies with another weight than it has."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(input, weight, self.bias)


class Doubled(nn.Conv2d):
    """The same, further inside."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        return super()._conv_forward(input, 2.0 * weight, bias)


class Halved(nn.Linear):
    """As a linear layer."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return nn.functional.linear(input, 0.5 * self.weight, self.bias)


class Named(nn.Conv2d):
    """Has nothing of its own but a way to be made."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3)


def patched() -> nn.Module:
    layer = nn.Conv2d(3, 3, 3)
    layer.forward = lambda x: nn.functional.conv2d(x, layer.weight.sin())
    return layer


@pytest.mark.parametrize("make", [lambda: Standardised(3, 3, 3), lambda: Doubled(3, 3, 3), patched])
def test_a_layer_that_computes_its_weight_is_not_mistaken_for_a_plain_one(
    make: Callable[[], nn.Module],
):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), make())
    kind = type(network[1]).__name__
    with pytest.raises(PlanError, match=f"layer '1' is a {kind} with weight, which no quantizer"):
        quantize(network, Plan.uniform())
    quantized = quantize(network, Plan.uniform().with_layer("1", LayerPlan(weight_bits=None)))
    assert list(quantized.codes) == ["0"]
    assert quantized.coverage["1"].reason.endswith(f"no quantizer knows {kind}")


def test_a_subclass_that_computes_as_its_kind_is_of_that_kind():
    axes = {
        name: layer.output_axis for name, layer in find_layers(nn.ModuleList([Named()])).items()
    }
    assert axes == {"0": 0}
    assert find_layers(nn.ModuleList([Halved(2, 2)]))["0"].output_axis is None


class Blurred(nn.Module):
    """Multiplies with a buffer, and has others that are no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("kernel", torch.full((3, 1, 3, 3), 1 / 9), persistent=False)
        self.register_buffer("mask", torch.eye(4))
        self.register_buffer("mean", torch.full((3,), 0.4))
        self.register_buffer("places", torch.arange(4).reshape(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(nn.functional.conv2d(x, self.kernel, groups=3))


def test_buffers_that_may_be_weights_are_named():
    coverage = quantize(Blurred(), Plan.uniform(weight_bits=4)).coverage
    assert list(coverage) == ["mix", "norm", "kernel"]
    kernel = coverage["kernel"]
    assert (kernel.kind, kernel.weights, kernel.weight_bits) == ("buffer", 27, None)
    assert kernel.reason == "a buffer, which no plan quantizes"


# A curvature is measured by gradients of the whole network's output, which parts do not have.
LAYERWISE = [name for name in method_names() if name not in {*NETWORK, *LOOKS_AT_CURVATURE}]


@pytest.mark.parametrize("method", LAYERWISE)
def test_grouped_transposed_convolution_has_a_scale_for_each_output(method: str):
    """As that of its groups, one by one."""
    torch.manual_seed(0)
    whole = nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2)
    with torch.no_grad():
        # Outputs of very different size, so that a scale of another one would not do.
        whole.weight.mul_(over_channels(whole, 10.0 ** torch.arange(-4.0, 4.0)))
    parts = [nn.ConvTranspose2d(3, 4, 3, stride=2) for _ in range(2)]
    for number, part in enumerate(parts):
        part.weight.data = whole.weight.data[3 * number : 3 * number + 3].clone()
        part.bias.data = whole.bias.data[4 * number : 4 * number + 4].clone()
    plan = Plan.uniform(weight_bits=5, granularity="channel", method=method)
    pictures = [torch.rand(2, 6, 9, 9)] if needs_calibration(method) else None
    found = quantize(nn.Sequential(whole), plan, pictures)
    assert found.scales["0"].shape == (8,)
    for number, part in enumerate(parts):
        inputs = None if pictures is None else [x[:, 3 * number :][:, :3] for x in pictures]
        expected = quantize(nn.Sequential(part), plan, inputs)
        codes = found.codes["0"][3 * number : 3 * number + 3]
        agreeing = float((codes == expected.codes["0"]).double().mean())
        # AdaRound descends on all groups at once, and so does not take the same way for each.
        least = 0.9 if method == "adaround" else 0.97 if pictures else 0.999
        assert agreeing > least
        scales = found.scales["0"][4 * number : 4 * number + 4]
        torch.testing.assert_close(scales, expected.scales["0"], rtol=0.02, atol=0.0)


@pytest.mark.parametrize("method", ["brecq", "incremental"])
def test_methods_of_a_network_keep_the_scales_of_groups(
    method: str, monkeypatch: pytest.MonkeyPatch
):
    from quantisp.quantization.methods import brecq, incremental

    monkeypatch.setattr(brecq, "STEPS", 3)
    monkeypatch.setattr(incremental, "STEPS", 3)
    network = nn.Sequential(nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2))
    plan = Plan.uniform(weight_bits=5, granularity="channel", method=method)
    found = quantize(network, plan, [torch.rand(2, 6, 9, 9) for _ in range(4)])
    assert found.scales["0"].shape == (8,)


def test_channels_of_a_grouped_transposed_convolution():
    layer = nn.ConvTranspose2d(4, 6, 1, groups=2)
    values = over_channels(layer, torch.arange(6.0))
    assert values[:, :, 0, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]


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
