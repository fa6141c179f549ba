"""Training with activations in integers: the same places as the integers, and what it gains."""

from __future__ import annotations

import pytest
import torch
from activation_kit import Chain, Everything, noise, tiny_dephasenet
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import ModelError
from quantisp.quantization import (
    LayerPlan,
    Plan,
    QuantizedModel,
    TrainableModel,
    pack_quantized,
    quantize,
    unpack_quantized,
)
from quantisp.quantization.trainable import STRAIGHT_THROUGH

pytestmark = pytest.mark.unit


def in_integers(network: nn.Module, weight_bits: int, activation_bits: int) -> QuantizedModel:
    plan = Plan.uniform(
        weight_bits=weight_bits, activation_bits=activation_bits, granularity="channel"
    )
    return quantize(network, plan, [noise(2, 1, 16, 16, seed=seed) for seed in (1, 2)])


@pytest.fixture(scope="module")
def everything() -> nn.Module:
    torch.manual_seed(2)
    return Everything().eval()


def codes_of(model: TrainableModel, x: Tensor) -> dict[str, Tensor]:
    """What each node gives, in codes, when it is given what the integers give."""
    activations, finished = model.activations, model.quantized().activations
    assert activations is not None
    assert finished is not None
    names = [node.name for node in finished.graph.nodes]
    found: dict[str, Tensor] = {}
    values = finished.run(x, names)
    real = {n: v * (q.scale if (q := finished.quantizers[n]) else 1.0) for n, v in values.items()}
    weights = {name: q(model._weight(name)) for name, q in model._quantizers().items()}
    layers = model._layers(weights)
    scales = dict(zip(activations._moving, activations._scales().float(), strict=True))
    for node in finished.graph.nodes:
        quantizer = finished.quantizers[node.name]
        if node.moves or quantizer is None:
            continue
        inputs = [real[name] for name in node.inputs] or [x]
        if node.layer is None:
            value = torch_value(node, inputs, (16, 16))
        else:
            value = activations._layer(node, inputs[0], *layers[node.layer])
        group = activations._placement.group_of[node.name]
        rounded = activations._rounded(value, group, scales)
        found[node.name] = (rounded / quantizer.scale).round() - values[node.name]
    return found


def torch_value(node: object, inputs: list[Tensor], size: tuple[int, int]) -> Tensor:
    from quantisp.quantization.graph.execution import compute

    return compute(node, inputs, None, size)  # pyright: ignore[reportArgumentType]


@torch.no_grad()
@pytest.mark.property
@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(4, 4), (8, 8), (6, 12)])
@pytest.mark.parametrize("form", STRAIGHT_THROUGH)
def test_each_tensor_is_that_of_the_integers(
    everything: nn.Module, weight_bits: int, activation_bits: int, form: str
) -> None:
    for network in (everything, tiny_dephasenet()):
        model = TrainableModel(in_integers(network, weight_bits, activation_bits), form).eval()
        apart = codes_of(model, noise(1, 1, 16, 16, seed=7))
        assert len(apart) > 10
        for name, difference in apart.items():
            # Multipliers of 16 bits and biases in steps of the accumulator move ties alone.
            assert float(difference.abs().max()) <= 1, name
        moved = torch.cat([difference.flatten() for difference in apart.values()])
        assert float((moved != 0).float().mean()) < 0.05


@torch.no_grad()
def test_without_a_bias_hardly_anything_differs() -> None:
    torch.manual_seed(3)
    chain = Chain().eval()
    for layer in (chain.first, chain.last):
        layer.bias = None
    start = in_integers(chain, 4, 4)
    model = TrainableModel(start, "lsq").eval()
    x = noise(2, 1, 16, 20, seed=5)
    # The mean error of channels, which calibration corrects, is a bias, too.
    assert float((model(x) - model.quantized()(x)).abs().gt(1e-6).float().mean()) < 0.02
    assert torch.equal(model.quantized()(x), start(x))


def small_network() -> nn.Module:
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1), nn.Sigmoid()
    ).eval()
    with torch.no_grad():
        network[2].weight.mul_(8.0)
    return network


def tuned(network: nn.Module, form: str) -> tuple[float, float, TrainableModel]:
    """The error to float before and after, of the network in integers."""
    start = in_integers(network, 4, 4)
    model = TrainableModel(start, form).train()
    codes = [model.get_parameter(name) for name in model.code_parameters]
    chosen = {id(parameter) for parameter in codes}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizer = torch.optim.Adam(
        [{"params": codes, "lr": 3e-2}, {"params": others, "lr": 2e-3}], betas=(0.9, 0.99)
    )
    for step in range(60):
        for group, rate in zip(optimizer.param_groups, (3e-2, 2e-3), strict=True):
            group["lr"] = rate * (1 - step / 60)
        optimizer.zero_grad()
        x = noise(4, 1, 16, 16, seed=step)
        functional.mse_loss(model(x), network(x).detach()).backward()
        optimizer.step()
    x = noise(8, 1, 16, 16, seed=999)
    finished = model.eval().quantized()
    with torch.no_grad():
        before, after = (
            float(functional.mse_loss(tried(x), network(x))) for tried in (start, finished)
        )
    return before, after, model


@pytest.mark.parametrize("form", STRAIGHT_THROUGH)
def test_four_bits_come_nearer_to_float(form: str) -> None:
    network = small_network()
    before, after, model = tuned(network, form)
    assert after < (0.95 if form == "lsq" else 0.99) * before, (before, after)
    assert model.activations is not None
    assert bool((model.activations.ratio != 1).all())


def test_every_scale_has_a_gradient() -> None:
    model = TrainableModel(in_integers(small_network(), 4, 6), "lsq").train()
    model(noise(2, 1, 16, 16)).square().mean().backward()
    assert "activations.ratio" in model.scale_parameters
    for name in (*model.scale_parameters, *model.code_parameters):
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        assert bool(torch.isfinite(gradient).all()), name
        assert bool(gradient.abs().sum() > 0), name


def test_gradients_of_values_and_scales_are_those_of_lsq() -> None:
    from quantisp.quantization.activations.trainable import _FakeQuantize

    x = torch.tensor([[-3.0, -0.6, 0.2, 1.4, 9.0]], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = _FakeQuantize.apply(x, scale, -4, 3, "half_up")
    assert y.tolist() == [[-2.0, -0.5, 0.0, 1.5, 1.5]]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 1.0, 1.0, 0.0]]
    expected = (-4 + (-1 + 1.2) + (0 - 0.4) + (3 - 2.8) + 3) / (5 * 3) ** 0.5
    torch.testing.assert_close(scale.grad, torch.tensor(expected))


@torch.no_grad()
def test_the_file_gives_back_the_integers(everything: nn.Module) -> None:
    x = noise(1, 1, 16, 16, seed=8)
    quantized = in_integers(everything, 5, 6)
    tensors, texts = pack_quantized(quantized)
    again = unpack_quantized(everything, tensors, texts)
    assert torch.equal(again(x), quantized(x))
    assert again.plan == quantized.plan
    damaged = {
        "activations/scales": -tensors["activations/scales"],
        "activations/scales ": tensors["activations/scales"],
        next(name for name in tensors if name.startswith("bias/")): torch.zeros(7),
    }
    for name, value in damaged.items():
        with pytest.raises(ModelError):
            unpack_quantized(everything, {**tensors, name: value}, texts)
    for example in ("", "[1, 2]", "[1, 1, 0, 3]", "[1, 1, 99999999, 3]"):
        with pytest.raises(ModelError, match="shape of an input"):
            unpack_quantized(everything, tensors, {**texts, "example": example})


def test_layers_in_float_stay_so() -> None:
    network = tiny_dephasenet()
    plan = Plan.uniform(weight_bits=6, activation_bits=8).with_layer(
        "tail", LayerPlan(weight_bits=None)
    )
    start = quantize(network, plan, [noise(2, 1, 24, 24)])
    model = TrainableModel(start, "lsq")
    x = noise(1, 1, 18, 22, seed=3)
    with torch.no_grad():
        assert model(x).shape == start(x).shape == (1, 3, 18, 22)
    assert model.quantized().coverage["tail"].weight_bits is None
