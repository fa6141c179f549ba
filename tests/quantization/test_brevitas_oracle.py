"""Codes against those of Brevitas, which nobody here wrote."""

from __future__ import annotations

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat
from torch import Tensor, nn

from quantisp.quantization import IntFormat, Plan, quantize, quantize_tensor, weight_scale

pytestmark = pytest.mark.reference

INJECTORS = {"tensor": Int8WeightPerTensorFloat, "channel": Int8WeightPerChannelFloat}
LAYERS = {
    "dephasenet-conv": (nn.Conv2d, qnn.QuantConv2d, (96, 96, 3), {"padding": 1}),
    "dephasenet-skip": (nn.Conv2d, qnn.QuantConv2d, (16, 48, 5), {"padding": 2}),
    "depthwise": (nn.Conv2d, qnn.QuantConv2d, (32, 32, 3), {"groups": 32}),
    "transposed": (nn.ConvTranspose2d, qnn.QuantConvTranspose2d, (24, 40, 2), {"stride": 2}),
    "linear": (nn.Linear, qnn.QuantLinear, (64, 128), {}),
}


def twins(name: str, bits: int, granularity: str) -> tuple[nn.Module, nn.Module]:
    """A float layer, and Brevitas's with the same weight."""
    ours, theirs, sizes, options = LAYERS[name]
    torch.manual_seed(bits)
    layer = ours(*sizes, **options)
    with torch.no_grad():
        layer.weight.normal_(std=0.05)
    oracle = theirs(
        *sizes, bias=True, **options, weight_quant=INJECTORS[granularity], weight_bit_width=bits
    )
    oracle.load_state_dict(layer.state_dict(), strict=False)
    return layer, oracle


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [10, *range(2, 10), 12, 16])
@pytest.mark.parametrize("name", LAYERS)
def test_codes_scales_and_weights_are_equal(name: str, bits: int, granularity: str):
    layer, oracle = twins(name, bits, granularity)
    plan = Plan.uniform(weight_bits=bits, granularity=granularity)
    quantized, expected = quantize(layer, plan), oracle.quant_weight()
    assert torch.equal(quantized.codes[""].int(), expected.int(float_datatype=False))
    assert torch.equal(quantized.scales[""].flatten(), expected.scale.detach().flatten())
    assert torch.equal(quantized.network.weight, expected.value)


def reciprocal(weight: Tensor, int_format: IntFormat) -> Tensor:
    return torch.round(weight * (1 / weight_scale(weight, int_format)))


def full_range_divisor(weight: Tensor, int_format: IntFormat) -> Tensor:
    scale = weight.abs().max() / (int_format.qmax + 1)
    return quantize_tensor(weight, scale, int_format, "half_even")


@pytest.mark.parametrize("wrong", [reciprocal, full_range_divisor])
def test_the_comparison_can_fail(wrong):
    layer, oracle = twins("dephasenet-conv", 16, "tensor")
    expected = oracle.quant_weight().int(float_datatype=False)
    codes = wrong(layer.weight.detach(), IntFormat(bits=16)).int()
    assert not torch.equal(codes, expected)
