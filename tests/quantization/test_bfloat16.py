"""Layers in bfloat16: which, how exactly, and when not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.quantization import bfloat16
from quantisp.quantization.bfloat16 import harmless, in_bfloat16

pytestmark = pytest.mark.unit


class Residual(nn.Module):
    """The sum is made in place, so that its format is that of what the layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.tail = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(self.body(x).mul_(0.01).add_(x))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def inputs(seed: int = 0) -> Tensor:
    return torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_only_these_layers_multiply_in_bfloat16(network: nn.Module) -> None:
    seen: dict[str, tuple[torch.dtype, torch.dtype]] = {}
    multiply = nn.functional.conv2d
    with torch.no_grad(), in_bfloat16(network, ["body"]):
        for name in ("head", "body", "tail"):
            layer = network.get_submodule(name)
            layer.register_forward_hook(
                lambda _l, args, given, name=name: seen.update({name: (args[0].dtype, given.dtype)})
            )
        found = network(inputs())
    with torch.no_grad():
        head = network.get_submodule("head")(inputs())
        body = network.get_submodule("body")
        halves = [value.bfloat16() for value in (head, body.weight, body.bias)]
        expected = network.get_submodule("tail")(
            multiply(*halves, padding=1).float().mul_(0.01).add_(head)
        )
        in_float = network(inputs())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(found, in_float, rtol=0, atol=1e-7)
    assert all(dtypes == (torch.float32, torch.float32) for dtypes in seen.values())


def test_outside_of_the_context_all_is_float(network: nn.Module) -> None:
    before = network(inputs())
    with in_bfloat16(network, ["body"]):
        pass
    assert torch.equal(network(inputs()), before)
    with pytest.raises(RuntimeError), in_bfloat16(network, ["body"]):
        network(torch.rand(2, 3, 8, 8))
    assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(network(inputs()), before)


def test_gradients_are_those_of_float_but_for_bfloat16(network: nn.Module) -> None:
    weights = {n: v.detach().clone().requires_grad_() for n, v in network.named_parameters()}

    def gradients(names: list[str]) -> list[Tensor]:
        with in_bfloat16(network, names):
            loss = functional_call(network, weights, (inputs(),)).square().mean()
        return list(torch.autograd.grad(loss, list(weights.values())))

    for rough, exact in zip(gradients(["body"]), gradients([]), strict=True):
        assert rough.dtype == torch.float32
        assert float((rough - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("fast", [True, False])
def test_it_is_used_where_it_is_fast_and_would_not_be_seen(
    network: nn.Module, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bfloat16, "multiplies_bfloat16", lambda _device: fast)
    before = copy.deepcopy(network.state_dict())
    with torch.no_grad(), in_bfloat16(network, ["body", "tail"]):
        rough = network(inputs())
    with torch.no_grad():
        error = float((rough - network(inputs())).square().mean())
    for share, seen in ((50.0, False), (200.0, True)):
        errors = {"head": 1.0, "body": 0.75 * share * error, "tail": 0.25 * share * error}
        names = ("body", "tail")
        assert harmless(network, names, errors, [inputs()]) == (names if seen and fast else ())
    assert harmless(network, (), errors, [inputs()]) == ()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
