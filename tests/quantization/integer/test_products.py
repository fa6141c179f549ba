"""Sums of products at the ends of what there is: exact by every kernel, or not by that kernel."""

from __future__ import annotations

import pytest
import torch

from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import Conv, ConvTranspose, Linear, Node
from quantisp.quantization.integer import fused, int8, products
from quantisp.quantization.integer.fused import rounding_is_exact
from quantisp.quantization.integer.int8 import int8_is_exact
from quantisp.quantization.integer.network import Codes, Weights
from quantisp.quantization.integer.products import choose_product

KINDS = ("int8", "float32", "float64")


def conv(**fields) -> Node:
    settings = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1} | fields
    return Node(name="conv", operation=Conv(layer="conv", **settings), inputs=("x",))


def summed(product, x):
    total = sum(
        part.double() * 2.0**by for part, by in zip(product.run(x), product.weighing, strict=True)
    )
    channels = product.sign.double()
    return total * (channels if total.shape[-1] == len(channels) else channels.view(-1, 1, 1))


def extremes(low, high, shape, seed):
    ends = torch.tensor([low, high])
    chosen = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed))
    return ends[chosen].to(torch.int32)


@pytest.mark.reference
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("weight_bits", "bits"), [(2, 4), (8, 8), (9, 8), (10, 12), (16, 16)])
def test_extremes_are_exact(kind, signed, weight_bits, bits):
    given = Codes(
        bits=bits,
        signed=signed,
        low=-(1 << (bits - 1)) if signed else 0,
        high=(1 << (bits - 1)) - 1 if signed else (1 << bits) - 1,
        scale=1.0,
    )
    top = (1 << (weight_bits - 1)) - 1
    for node, shape, size in (
        (conv(), (3, 64, 3, 3), (1, 64, 5, 6)),
        (conv(groups=8, stride=(2, 1), dilation=(1, 2)), (8, 1, 3, 3), (2, 8, 6, 7)),
    ):
        codes = [
            extremes(-top, top, shape, 1),
            torch.full(shape, top, dtype=torch.int32),
            torch.full(shape, -top - 1, dtype=torch.int32),
        ]
        for seed, weight in enumerate(codes):
            weights = Weights(
                codes=weight,
                bits=weight_bits,
                bias=torch.zeros(shape[0], dtype=torch.int64),
                bias_bits=32,
            )
            x = extremes(given.low, given.high, size, seed)
            fallback = () if kind == "int8" else ("float64",)
            product = choose_product(node, weights, given, (kind, *fallback))
            wanted = apply_weight(node.operation, x.double(), weight.double(), None)
            assert torch.equal(summed(product, x), wanted)


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["int8", "float64"])
def test_matrix_products_and_transposed_convolutions(kind):
    given = Codes(bits=12, signed=True, low=-2048, high=2047, scale=1.0)
    linear = Node(name="linear", operation=Linear(layer="mix"), inputs=("x",))
    up = ConvTranspose(
        layer="up",
        stride=(2, 2),
        padding=(1, 0),
        output_padding=(1, 0),
        dilation=(1, 1),
        groups=2,
    )
    transposed = Node(name="up", operation=up, inputs=("x",))
    for node, shape, channels, size in (
        (linear, (5, 7), 5, (2, 3, 4, 7)),
        (transposed, (4, 3, 3, 3), 6, (1, 4, 5, 6)),
    ):
        weight = extremes(-511, 511, shape, 3)
        bias = torch.zeros(channels, dtype=torch.int64)
        weights = Weights(codes=weight, bits=10, bias=bias, bias_bits=32)
        x = extremes(-2048, 2047, size, 4)
        product = choose_product(node, weights, given, (kind, "float32", "float64"))
        wanted = apply_weight(node.operation, x.double(), weight.double(), None)
        assert torch.equal(summed(product, x), wanted)


def test_float32_alone_would_not_do():
    # The twin: without limbs such sums are rounded.
    weight = torch.full((1, 576, 1, 1), 511.0)
    x = torch.arange(576.0).add(3520).view(1, -1, 1, 1)
    rounded = torch.nn.functional.conv2d(x, weight)
    assert float(rounded.double()) != float((x.double() * weight.double()).sum())


def test_where_bytes_are_not_exact_others_are_used(monkeypatch):
    assert isinstance(int8_is_exact(), bool)
    monkeypatch.setattr(products, "int8_is_exact", lambda: False)
    given = Codes(bits=8, signed=False, low=0, high=255, scale=1.0)
    weights = Weights(
        codes=extremes(-127, 127, (2, 4, 3, 3), 1),
        bits=8,
        bias=torch.zeros(2, dtype=torch.int64),
        bias_bits=32,
    )
    assert choose_product(conv(), weights, given).kind == "float32"


def test_the_self_test_finds_an_operator_that_saturates(monkeypatch):
    real = int8.convolution

    def saturating(operation, codes, *, zero):
        run = real(operation, codes, zero=zero)
        return lambda x: run(x).clamp(-32768, 32767)

    monkeypatch.setattr(int8, "convolution", saturating)
    int8_is_exact.cache_clear()
    assert not int8_is_exact()
    int8_is_exact.cache_clear()


def test_a_self_test_finds_an_operator_that_rounds_otherwise(monkeypatch):
    real = fused.convolution

    def truncating(operation, codes, **options):
        dtype = options.pop("dtype")
        run = real(operation, codes, **options)
        held = torch.iinfo(dtype)
        return lambda x: run(x).trunc().clamp(held.min, held.max).to(dtype)

    assert isinstance(rounding_is_exact(), bool)
    monkeypatch.setattr(fused, "convolution", truncating)
    rounding_is_exact.cache_clear()
    assert not rounding_is_exact()
    rounding_is_exact.cache_clear()
