from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_kit import tiny_net

from quantisp.training.optimizers import Optimizers

LEARNING_RATE = 1e-2


def made(kind: str, net: nn.Module, weight_decay: float = 0.0) -> Optimizers:
    return Optimizers(kind, net, learning_rate=LEARNING_RATE, weight_decay=weight_decay)


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def moved(optimizers: Optimizers, net: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """How far one step along the same gradients moves each parameter."""
    generator = torch.Generator().manual_seed(seed)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    for value in net.parameters():
        # One direction stands out, as in real gradients.
        noise = torch.randn(value.shape, generator=generator)
        value.grad = noise + 5.0 * torch.sign(noise[:1])
    optimizers.step(LEARNING_RATE)
    return {name: value.detach() - before[name] for name, value in net.named_parameters()}


@pytest.mark.reference
def test_adamw_is_that_of_torch() -> None:
    net = network()
    other = copy.deepcopy(net)
    step = moved(made("adamw", net, weight_decay=0.1), net)
    rival: Any = torch.optim.AdamW(other.parameters(), LEARNING_RATE, weight_decay=0.1)

    class Plain:
        def step(self, _learning_rate: float) -> None:
            rival.step()

    expected = moved(Plain(), other)  # pyright: ignore[reportArgumentType]
    for name, value in step.items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.unit
def test_muon_moves_every_direction_of_a_weight_alike() -> None:
    net = network()
    step = moved(made("muon", net), net)
    for name in ("0.weight", "3.weight"):
        values = torch.linalg.svdvals(step[name].flatten(1))
        # The iteration of the source brings singular values near 1, not to it.
        assert float(values.max() / values.min()) < 2.0
        # The size of an update of AdamW: about 0.2 of the learning rate.
        assert float(step[name].square().mean().sqrt()) == pytest.approx(0.2e-2, rel=0.2)
    # The twin: AdamW does not.
    other = network()
    values = torch.linalg.svdvals(moved(made("adamw", other), other)["3.weight"])
    assert float(values.max() / values.min()) > 4.0


@pytest.mark.reference
def test_a_convolution_is_the_matrix_of_its_outputs() -> None:
    """Against torch's Muon on the matrix (out, everything else), whatever its columns' order."""
    net = network()
    weight = net[0].weight.detach().clone()  # pyright: ignore
    step = moved(made("muon", net), net)["0.weight"]
    matrix = nn.Parameter(weight.flatten(1))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(weight.shape, generator=generator)
    matrix.grad = (noise + 5.0 * torch.sign(noise[:1])).flatten(1)
    torch.optim.Muon(
        [matrix], LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
    ).step()
    expected = (matrix.detach() - weight.flatten(1)).view_as(weight)
    # The iteration runs in bfloat16, whose rounding depends on the columns' order.
    assert float((step - expected).norm() / expected.norm()) < 0.05


@pytest.mark.unit
def test_what_is_no_matrix_is_left_to_adamw() -> None:
    net = network()
    other = copy.deepcopy(net)
    muon, adamw = moved(made("muon", net), net), moved(made("adamw", other), other)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert torch.equal(muon[name], adamw[name])
    for name in ("0.weight", "3.weight"):
        assert not torch.allclose(muon[name], adamw[name])


@pytest.mark.unit
def test_the_skip_is_left_to_adamw() -> None:
    net = tiny_net().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    other = copy.deepcopy(net)
    muon, adamw = moved(made("muon", net), net), moved(made("adamw", other), other)
    assert torch.equal(muon["skip.weight"], adamw["skip.weight"])
    assert not torch.allclose(muon["tail.weight"], adamw["tail.weight"])


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_it_goes_on_from_its_moments(kind: str) -> None:
    net = network()
    optimizers = made(kind, net)
    moved(optimizers, net, seed=1)
    other = copy.deepcopy(net)
    resumed = made(kind, other)
    resumed.load_state_dict(copy.deepcopy(optimizers.state_dict()))
    step, again = moved(optimizers, net, seed=2), moved(resumed, other, seed=2)
    assert all(torch.equal(step[name], again[name]) for name in step)
    # The twin: without them it does not.
    fresh = copy.deepcopy(other)
    third, forgotten = moved(optimizers, net, seed=3), moved(made(kind, fresh), fresh, seed=3)
    assert not torch.allclose(third["0.weight"], forgotten["0.weight"])


@pytest.mark.unit
def test_the_moments_of_another_kind_are_refused() -> None:
    state = made("muon", network()).state_dict()
    with pytest.raises(ValueError, match="it has moments of adamw, muon"):
        made("adamw", network()).load_state_dict(state)


class WithRates(nn.Module):
    """Two of three layers have rates of their own."""

    rates = MappingProxyType({"fast.weight": 3.0, "fast.bias": 5.0})

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.Linear(3, 3), nn.Linear(3, 3)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_parameters_move_at_their_own_rates(kind: str) -> None:
    net = WithRates()
    first = copy.deepcopy(net)
    optimizers = made(kind, net, weight_decay=0.0)
    for layer in (net.fast, net.slow):
        layer.weight.grad = torch.eye(3)
        layer.bias.grad = torch.ones(3)
    optimizers.step(LEARNING_RATE)
    for name, rate in (("weight", 3.0), ("bias", 5.0)):
        fast, slow = (
            part.get_parameter(name).detach() - before.get_parameter(name).detach()
            for part, before in ((net.fast, first.fast), (net.slow, first.slow))
        )
        assert float(slow.abs().max()) > 0
        torch.testing.assert_close(fast, rate * slow, rtol=1e-3, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_what_has_its_own_rate_does_not_decay(kind: str) -> None:
    net = WithRates()
    first = copy.deepcopy(net)
    optimizers = made(kind, net, weight_decay=0.5)
    for value in net.parameters():
        value.grad = torch.zeros_like(value)
    optimizers.step(LEARNING_RATE)
    assert torch.equal(net.fast.weight, first.fast.weight)
    assert not torch.equal(net.slow.weight, first.slow.weight)


class WithScales(nn.Module):
    """One scale of two is said to be one."""

    scale_parameters = ("scale",)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))
        self.other = nn.Parameter(torch.ones(3))


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_scales_do_not_decay(kind: str) -> None:
    net = WithScales()
    optimizers = made(kind, net, weight_decay=0.5)
    for value in net.parameters():
        value.grad = torch.zeros_like(value)
    optimizers.step(LEARNING_RATE)
    assert torch.equal(net.scale, torch.ones(3))
    assert torch.equal(net.other, torch.full((3,), 1.0 - 0.5 * LEARNING_RATE))
    net.scale.grad = torch.ones(3)
    optimizers.step(LEARNING_RATE)
    assert bool((net.scale < 1.0).all())
    again = made(kind, WithScales(), weight_decay=0.5)
    again.load_state_dict(optimizers.state_dict())
    assert again.state_dict().keys() == optimizers.state_dict().keys()
