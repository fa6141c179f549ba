from __future__ import annotations

import copy
import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import quantisp.quantization.walk as walk_module
from quantisp.errors import ModelError, PlanError, RunError, SettingError
from quantisp.quantization import (
    METHODS,
    IntFormat,
    LayerPlan,
    Plan,
    QuantizedWeight,
    find_layers,
    quantize,
    round_scalar,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [2, 8, 9, 16])
def test_weights_are_codes_times_scales(zoo: nn.Module, bits: int, granularity: str):
    quantized = quantize(zoo, Plan.uniform(weight_bits=bits, granularity=granularity))
    assert list(quantized.codes) == ["head", "depthwise", "grouped", "up", "mix"]
    for name, codes in quantized.codes.items():
        scale, weight = quantized.scales[name], quantized.network.get_parameter(f"{name}.weight")
        assert codes.dtype == (torch.int8 if bits <= 8 else torch.int16)
        assert scale.dtype == weight.dtype == torch.float32
        assert quantized.formats[name] == IntFormat(bits=bits)
        axis = 1 if name == "up" else 0
        if granularity == "channel":
            assert scale.shape == (codes.shape[axis],)
            scale = scale.reshape([-1 if dim == axis else 1 for dim in range(codes.ndim)])
        assert torch.equal(codes.float() * scale, weight)


@pytest.mark.parametrize("bits", [4, 16])
def test_each_channel_is_quantized_by_itself(zoo: nn.Module, bits: int):
    """From the definition, in exact fractions of the float32 numbers."""
    quantized = quantize(zoo, Plan.uniform(weight_bits=bits, granularity="channel"))
    for name, axis in {"depthwise": 0, "grouped": 0, "up": 1, "mix": 0}.items():
        channels = zoo.get_parameter(f"{name}.weight").detach().transpose(0, axis)
        codes = quantized.codes[name].transpose(0, axis)
        for values, found, scale in zip(channels, codes, quantized.scales[name], strict=True):
            step = Fraction(scale.item())
            exact = [Fraction(value) / step for value in values.flatten().tolist()]
            assert found.flatten().tolist() == [round_scalar(x, "half_even") for x in exact]
            assert int(found.abs().max()) == 2 ** (bits - 1) - 1


def test_output_is_that_of_the_dequantized_network(zoo: nn.Module, image: Tensor):
    quantized = quantize(zoo, Plan.uniform(weight_bits=4))
    by_hand = copy.deepcopy(zoo)
    with torch.no_grad():
        for name, codes in quantized.codes.items():
            weight = by_hand.get_parameter(f"{name}.weight")
            weight.copy_(codes * quantized.scales[name])
            assert torch.equal(quantized.network.get_parameter(f"{name}.weight"), weight)
        # Equal weights of another layout in memory may take another kernel, and another last bit.
        torch.testing.assert_close(quantized(image), by_hand(image))
        assert float((quantized(image) - zoo(image)).abs().max()) > 1e-3


def test_more_bits_are_closer_to_float(zoo: nn.Module, image: Tensor):
    with torch.no_grad():
        errors = [
            (quantize(zoo, Plan.uniform(weight_bits=bits))(image) - zoo(image))
            .square()
            .mean()
            .item()
            for bits in (4, 8, 12, 16)
        ]
    # Four bits more: 256 times less, on average.
    assert all(50 < more / fewer < 1500 for more, fewer in itertools.pairwise(errors))


def test_the_network_itself_is_not_changed(zoo: nn.Module, image: Tensor):
    before = copy.deepcopy(zoo.state_dict())
    quantized = quantize(zoo, Plan.uniform(weight_bits=2))
    with torch.no_grad():
        for parameter in quantized.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], value) for name, value in zoo.state_dict().items())
    assert all(parameter.requires_grad for parameter in zoo.parameters())


def test_training_cannot_part_weights_and_codes(zoo: nn.Module, image: Tensor):
    zoo(image).sum().backward()
    quantized = quantize(zoo, Plan.uniform(weight_bits=4))
    optimizer = torch.optim.SGD(quantized.parameters(), lr=1.0)
    quantized(image).sum().backward()
    optimizer.step()
    head = quantized.network.get_parameter("head.weight")
    assert torch.equal(quantized.codes["head"] * quantized.scales["head"], head)
    assert not torch.equal(quantized.network.head.bias, zoo.head.bias)


def test_copy_and_state(zoo: nn.Module, image: Tensor):
    quantized = quantize(zoo, Plan.uniform(weight_bits=6, granularity="channel"))
    twin = copy.deepcopy(quantized)
    assert twin.plan == quantized.plan
    assert twin.codes["up"] is not quantized.codes["up"]
    assert torch.equal(twin.codes["up"], quantized.codes["up"])
    assert set(quantized.state_dict()) == {f"network.{name}" for name in zoo.state_dict()}
    assert not quantized.training
    with torch.no_grad():
        assert torch.equal(twin(image), quantized(image))


def test_plan_without_bits_gives_the_float_network(zoo: nn.Module, image: Tensor):
    quantized = quantize(zoo, Plan.uniform(weight_bits=None))
    assert quantized.codes == quantized.scales == quantized.formats == {}
    assert {layer.weight_bits for layer in quantized.coverage.values()} == {None}
    with torch.no_grad():
        assert torch.equal(quantized(image), zoo(image))


def test_mixed_plan_and_coverage(zoo: nn.Module):
    plan = (
        Plan.uniform(weight_bits=4)
        .with_layer("mix", LayerPlan(weight_bits=12, granularity="channel"))
        .with_layer("up", LayerPlan(weight_bits=None))
    )
    quantized = quantize(zoo, plan)
    bits = {name: layer.weight_bits for name, layer in quantized.coverage.items()}
    assert bits == {"head": 4, "depthwise": 4, "grouped": 4, "up": None, "mix": 12, "norm": None}
    assert quantized.coverage["up"].reason == "float by the plan"
    assert quantized.coverage["head"].weights == 8 * 9
    assert torch.equal(quantized.network.up.weight, zoo.up.weight)
    assert quantized.plan == plan


def test_pattern_is_that_of_the_network(zoo: nn.Module):
    assert quantize(zoo, Plan.uniform()).pattern is None
    zoo.pattern = "any object"
    assert quantize(zoo, Plan.uniform()).pattern == "any object"


def test_rounding_and_range_of_the_plan_are_used():
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[7.0, -7.0, 2.5, -2.5]]))
    expected = {"half_even": [2, -2], "half_up": [3, -2], "half_away": [3, -3]}
    for rounding, codes in expected.items():
        plan = Plan(default=LayerPlan(weight_bits=4, rounding=rounding, narrow_range=False))
        quantized = quantize(layer, plan)
        assert quantized.codes[""].tolist() == [[7, -7, *codes]]
        assert quantized.formats[""].qmin == -8


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(zoo: nn.Module, value: float):
    with torch.no_grad():
        zoo.grouped.weight[3, 1, 0, 0] = value
    with pytest.raises(ModelError, match="in layer 'grouped': expected finite weights"):
        quantize(zoo, Plan.uniform())


def test_weights_of_another_type(zoo: nn.Module):
    with pytest.raises(ModelError, match=r"layer 'head' has torch\.bfloat16"):
        quantize(zoo.bfloat16(), Plan.uniform())


def test_calibration_that_nothing_looks_at_is_refused(zoo: nn.Module, image: Tensor):
    with pytest.raises(SettingError, match=r"methods of the plan \(rtn\) do not look at it"):
        quantize(zoo, Plan.uniform(), calibration=[image])


def test_quantized_network_is_not_quantized_again(zoo: nn.Module):
    with pytest.raises(ModelError, match="found a quantized one"):
        quantize(quantize(zoo, Plan.uniform()), Plan.uniform())


def test_layer_that_was_forgotten_is_an_error(zoo: nn.Module, monkeypatch: pytest.MonkeyPatch):
    def forgetful(network: nn.Module) -> dict[str, object]:
        return {name: layer for name, layer in find_layers(network).items() if name != "up"}

    monkeypatch.setattr(walk_module, "find_layers", forgetful)
    with pytest.raises(PlanError, match=r"layer 'up' in 8 bits, its 'up.weight' is still float"):
        quantize(zoo, Plan.uniform())


def too_wide(weight: Tensor, int_format: IntFormat, rounding: str, axis: int | None):
    scale = weight.abs().max() / 10_000
    return QuantizedWeight(codes=torch.round(weight / scale).int(), scale=scale, axis=axis)


def not_a_number(weight: Tensor, int_format: IntFormat, rounding: str, axis: int | None):
    codes = torch.zeros_like(weight, dtype=torch.int32)
    return QuantizedWeight(codes=codes, scale=torch.tensor(float("nan")), axis=axis)


@pytest.mark.parametrize("method", [too_wide, not_a_number])
@pytest.mark.parametrize("bits", [8, 10])
def test_method_that_breaks_its_promise_is_an_error(
    zoo: nn.Module, monkeypatch: pytest.MonkeyPatch, method, bits: int
):
    monkeypatch.setitem(METHODS, "broken", method)
    with pytest.raises(RunError, match="layer 'head', found others: method 'broken'"):
        quantize(zoo, Plan.uniform(weight_bits=bits, method="broken"))
