"""A quantized network as tensors and texts: the same bits come back, and damage is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import ModelError
from quantisp.quantization import LayerPlan, Plan, QuantizedModel, quantize
from quantisp.quantization.packing import pack_quantized, unpack_quantized

pytestmark = pytest.mark.unit

Packed = tuple[dict[str, Tensor], dict[str, str]]


def mixed_plan() -> Plan:
    plan = Plan.uniform(weight_bits=4, method="mse", granularity="channel")
    return plan.with_layer("mix", LayerPlan(weight_bits=None)).with_layer(
        "depthwise", LayerPlan(weight_bits=12, narrow_range=False)
    )


@pytest.fixture
def quantized(zoo: nn.Module) -> QuantizedModel:
    with torch.no_grad():
        for parameter in zoo.parameters():
            parameter.add_(0.01)
        zoo.get_buffer("norm.running_mean").add_(0.3)
    return quantize(zoo, mixed_plan())


@pytest.fixture
def structure(zoo: nn.Module) -> nn.Module:
    """The same network with other weights."""
    other = type(zoo)().eval()
    assert not torch.equal(other.head.weight, zoo.head.weight)
    return other


def test_the_same_bits_come_back(quantized: QuantizedModel, structure: nn.Module) -> None:
    untouched = structure.head.weight.detach().clone()
    tensors, texts = pack_quantized(quantized)
    again = unpack_quantized(structure, tensors, texts)
    assert (again.plan, again.decisions) == (quantized.plan, quantized.decisions)
    assert again.coverage == quantized.coverage
    assert again.codes.keys() == quantized.codes.keys()
    for name, codes in quantized.codes.items():
        assert again.codes[name].dtype == codes.dtype
        assert torch.equal(again.codes[name], codes)
        assert torch.equal(again.scales[name], quantized.scales[name])
    own = quantized.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.network.state_dict().items())
    # Equal weights of another layout in memory may take another kernel, and so another last bit.
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(again(x), quantized(x))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert torch.equal(structure.head.weight, untouched)


def test_a_transposed_convolution_of_groups_comes_back() -> None:
    torch.manual_seed(8)
    network = nn.Sequential(nn.ConvTranspose2d(6, 8, 3, groups=2))
    found = quantize(network, Plan.uniform(weight_bits=5, granularity="channel"))
    again = unpack_quantized(
        nn.Sequential(nn.ConvTranspose2d(6, 8, 3, groups=2)), *pack_quantized(found)
    )
    x = torch.rand(1, 6, 5, 5)
    assert torch.equal(again(x), found(x))
    assert torch.equal(found.weights()["0"].dequantize(), network_weight(found))


def network_weight(quantized: QuantizedModel) -> Tensor:
    return quantized.network.get_parameter("0.weight").detach()


def test_no_weight_is_there_twice(quantized: QuantizedModel) -> None:
    tensors, _ = pack_quantized(quantized)
    assert tensors["codes/head"].dtype == torch.int8
    assert tensors["codes/depthwise"].dtype == torch.int16
    assert {"state/mix.weight", "state/head.bias", "state/norm.running_var"} <= tensors.keys()
    assert "state/head.weight" not in tensors
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)


def drop(name: str) -> Callable[[Packed], object]:
    return lambda packed: packed[0].pop(name)


def put(name: str, value: Tensor) -> Callable[[Packed], object]:
    return lambda packed: packed[0].update({name: value})


def say(name: str, text: str) -> Callable[[Packed], object]:
    return lambda packed: packed[1].update({name: text})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("scale/head"), "lacks scale/head"),
        (drop("codes/head"), "lacks codes/head"),
        (drop("state/head.bias"), "lacks state/head.bias"),
        (put("state/other", torch.ones(1)), "has a further state/other"),
        (put("codes/head", torch.full((8, 1, 3, 3), 8, dtype=torch.int8)), "from -7 to 7"),
        (put("codes/head", torch.zeros(8, 1, 3, 3)), "codes/head as torch.int8"),
        (put("codes/head", torch.zeros(8, 3, 3, dtype=torch.int8)), r"of \(8, 1, 3, 3\)"),
        (put("codes/depthwise", torch.zeros(8, 1, 3, 3, dtype=torch.int8)), "torch.int16"),
        (put("scale/head", torch.zeros(8)), "scales above 0, scale/head"),
        (put("scale/head", torch.full((8,), torch.nan)), "scales above 0, scale/head"),
        (put("scale/head", torch.ones(())), r"scale/head as torch.float32 of \(8,\)"),
        (put("state/head.bias", torch.full((8,), torch.inf)), "NaN or infinity"),
        (put("state/head.bias", torch.zeros(9)), "state/head.bias as torch.float32"),
        (say("plan", "{}"), "the plan or the decisions"),
        (say("plan", Plan.uniform(weight_bits=4).to_json()), "has a further|lacks|expected"),
        (say("decisions", "[1]"), "a list of texts"),
        (say("decisions", "nothing"), "the plan or the decisions"),
    ],
)
def test_damage_is_named(
    quantized: QuantizedModel,
    structure: nn.Module,
    damage: Callable[[Packed], object],
    message: str,
) -> None:
    packed = pack_quantized(quantized)
    damage(packed)
    with pytest.raises(ModelError, match=message) as caught:
        unpack_quantized(structure, *packed)
    assert "\n" not in str(caught.value)


def test_another_network_is_refused(quantized: QuantizedModel) -> None:
    with pytest.raises(ModelError, match="does not fit the network"):
        unpack_quantized(nn.Sequential(nn.Conv2d(1, 8, 3)), *pack_quantized(quantized))
