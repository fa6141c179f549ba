"""Fine-tuning a quantized network: where it begins, what moves, and the codes that come back."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import ModelError, PlanError, SettingError
from quantisp.quantization import LayerPlan, Plan, QuantizedModel, quantize
from quantisp.quantization.trainable import STRAIGHT_THROUGH, TrainableModel

pytestmark = pytest.mark.unit


def inputs(seed: int = 0, count: int = 2) -> Tensor:
    return torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def mixed_plan() -> Plan:
    plan = Plan.uniform(weight_bits=4, method="mse", granularity="channel")
    return plan.with_layer("mix", LayerPlan(weight_bits=None)).with_layer(
        "depthwise", LayerPlan(weight_bits=10, narrow_range=False, rounding="half_up")
    )


@pytest.fixture
def start(zoo: nn.Module) -> QuantizedModel:
    return quantize(zoo, mixed_plan())


def optimizer_of(model: TrainableModel, rate: float) -> torch.optim.Optimizer:
    """A step moves a code by 30 times the rate."""
    codes = [model.get_parameter(name) for name in model.code_parameters]
    chosen = {id(parameter) for parameter in codes}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return torch.optim.Adam([{"params": others}, {"params": codes, "lr": 30 * rate}], rate)


def trained(model: TrainableModel, steps: int, rate: float = 1e-3) -> list[float]:
    """Towards zero outputs: no sense, but every parameter has a gradient."""
    model.train()
    optimizer = optimizer_of(model, rate)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(inputs(step)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_it_begins_as_the_quantized_network(start: QuantizedModel) -> None:
    model = TrainableModel(start, "lsq")
    assert torch.equal(model(inputs()), start(inputs()))
    again = model.quantized()
    assert all(torch.equal(again.codes[n], start.codes[n]) for n in start.codes)
    assert all(torch.equal(again.scales[n], start.scales[n]) for n in start.scales)
    assert again.plan == start.plan
    assert again.decisions == ("lsq: fine-tuned",)


def test_the_plain_form_begins_where_the_absolute_maximum_was(zoo: nn.Module) -> None:
    start = quantize(zoo, Plan.uniform(weight_bits=4, granularity="channel"))
    model = TrainableModel(start, "plain")
    torch.testing.assert_close(model(inputs()), start(inputs()))
    assert all(torch.equal(model.quantized().codes[n], start.codes[n]) for n in start.codes)


@pytest.mark.parametrize("form", STRAIGHT_THROUGH)
def test_what_was_trained_is_codes_times_scales(start: QuantizedModel, form: str) -> None:
    before = copy.deepcopy(start.state_dict())
    model = TrainableModel(start, form)
    losses = trained(model, 12)
    assert losses[-1] < losses[0]
    finished = model.eval().quantized()
    with torch.no_grad():
        assert torch.equal(finished(inputs(99)), model(inputs(99)))
    assert set(finished.codes) == set(start.codes)
    assert any(not torch.equal(finished.codes[n], start.codes[n]) for n in start.codes)
    assert finished.coverage["mix"].weight_bits is None
    for name, parameter in finished.network.named_parameters():
        # Weights that are codes are frozen, so that nothing can part the two.
        assert parameter.requires_grad != (name.rpartition(".")[0] in finished.codes) or (
            parameter.ndim == 1
        )
        assert not torch.equal(parameter, before[f"network.{name}"]) or name.startswith("norm")
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())


def test_every_parameter_has_a_gradient(start: QuantizedModel) -> None:
    model = TrainableModel(start, "lsq").train()
    model(inputs()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    assert len(model.scale_parameters) == len(start.codes)
    shapes = {tuple(model.get_parameter(name).shape) for name in model.scale_parameters}
    assert shapes == {(8,), (), (12,), (5,)}


def test_its_state_goes_on_to_the_last_bit(start: QuantizedModel) -> None:
    model = TrainableModel(start, "lsq")
    trained(model, 3)
    again = TrainableModel(start, "lsq")
    again.load_state_dict(model.state_dict())
    one, other = model.eval().quantized(), again.eval().quantized()
    assert torch.equal(one(inputs()), other(inputs()))
    assert all(torch.equal(one.scales[n], other.scales[n]) for n in one.scales)


@pytest.mark.parametrize("form", STRAIGHT_THROUGH)
def test_it_gets_nearer_to_float_than_where_it_began(form: str) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 1, 3, padding=1)
    ).eval()
    start = quantize(net, Plan.uniform(weight_bits=3, method="mse", granularity="channel"))
    model = TrainableModel(start, form).train()
    optimizer = optimizer_of(model, 1e-3)
    for step in range(150):
        for group, rate in zip(optimizer.param_groups, (1e-3, 3e-2), strict=True):
            group["lr"] = rate * (1 - step / 150)
        optimizer.zero_grad()
        x = inputs(step, 8)
        functional.mse_loss(model(x), net(x).detach()).backward()
        optimizer.step()
    with torch.no_grad():
        held_out = inputs(1000, 16)
        errors = [
            float(functional.mse_loss(tried(held_out), net(held_out)))
            for tried in (start, model.eval().quantized())
        ]
    assert errors[1] < 0.7 * errors[0], errors


class Twice(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(torch.relu(self.one(x)))


def test_layers_that_share_a_weight_share_its_codes() -> None:
    torch.manual_seed(5)
    start = quantize(Twice(), Plan.uniform(weight_bits=4))
    model = TrainableModel(start, "lsq")
    assert len(model.quantizers) == 1
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().mean().backward()
        optimizer.step()
    finished = model.quantized()
    assert torch.equal(finished.codes["one"], finished.codes["other"])
    assert finished.network.get_submodule("one").weight is (
        finished.network.get_submodule("other").weight
    )
    assert torch.equal(finished(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_a_network_that_is_one_layer() -> None:
    torch.manual_seed(6)
    model = TrainableModel(quantize(nn.Linear(4, 3), Plan.uniform(weight_bits=4)), "lsq")
    model(torch.ones(1, 4)).sum().backward()
    assert model.network.get_parameter("weight").grad is not None
    assert list(model.quantized().codes) == [""]


def test_what_cannot_be_fine_tuned(start: QuantizedModel, zoo: nn.Module) -> None:
    with pytest.raises(SettingError, match="among incremental, lsq, plain, found 'pact'"):
        TrainableModel(start, "pact")
    with pytest.raises(SettingError, match="expected the float network for the incremental form"):
        TrainableModel(start, "incremental")
    with pytest.raises(SettingError, match="expected the float network for the incremental form"):
        TrainableModel(start, "lsq", floats=zoo)
    with pytest.raises(ModelError, match="found only float ones"):
        TrainableModel(quantize(zoo, Plan.uniform(weight_bits=None)), "lsq")
    grouped = nn.Sequential(nn.ConvTranspose2d(6, 8, 3, groups=2))
    plan = Plan.uniform(weight_bits=4, granularity="channel")
    with pytest.raises(PlanError, match="'0' is a transposed convolution of groups"):
        TrainableModel(quantize(grouped, plan), "lsq")


def test_layers_that_stay_in_float32_are_named_for_the_trainer(zoo: nn.Module) -> None:
    zoo.float32_layers = ("head",)
    model = TrainableModel(quantize(zoo, mixed_plan()), "lsq")
    assert model.float32_layers == ("network.head",)
    assert model.get_submodule(model.float32_layers[0]) is model.network.get_submodule("head")
