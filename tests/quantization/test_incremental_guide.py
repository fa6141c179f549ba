"""Incremental fine-tuning: float first, then codes layer by layer, and what moves meanwhile."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import RunError, SettingError
from quantisp.quantization import IncrementalGuide, LayerPlan, Plan, QuantizedModel, quantize
from quantisp.quantization.incremental_guide import AGAIN
from quantisp.quantization.trainable import TrainableModel

pytestmark = pytest.mark.unit

PLAN = Plan.uniform(weight_bits=3, granularity="channel")


class Steps(nn.Module):
    """Layers of very different weight for the output, one of which is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.again.weight = self.middle.weight
        self.tail = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.head(x))
        x = x + 0.1 * torch.relu(self.middle(x))
        return self.tail(x + 0.1 * torch.relu(self.again(x)))


@pytest.fixture
def floats() -> nn.Module:
    torch.manual_seed(3)
    return Steps().eval()


def inputs(seed: int = 0, count: int = 4) -> Tensor:
    return torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def guide_of(floats: nn.Module, plan: Plan = PLAN) -> IncrementalGuide:
    return IncrementalGuide(floats, plan, [inputs(seed) for seed in range(3)])


def begun(floats: nn.Module, plan: Plan = PLAN) -> TrainableModel:
    return TrainableModel(quantize(floats, plan), "incremental", floats=floats).train()


def test_it_begins_as_the_float_network(floats: nn.Module) -> None:
    model = begun(floats)
    assert torch.equal(model(inputs()), floats(inputs()))
    assert set(model.free) == {"head", "middle", "tail"}
    with pytest.raises(RunError, match="found some still in float"):
        model.quantized()


def test_layers_are_rounded_when_their_stage_begins(floats: nn.Module) -> None:
    guide, model = guide_of(floats), begun(floats)
    order = [name for stage in guide.stages for name in stage.layers]
    assert sorted(order) == ["head", "middle", "tail"]
    seen: list[set[str]] = []
    for percent in range(100):
        before = set(model.free)
        if guide.lead(model, percent / 100):
            seen.append(before - set(model.free))
            assert guide.stage(percent / 100)[1] < 0.05
        assert guide.is_complete(model) == (not model.free)
    assert seen == [set(stage.layers) for stage in guide.stages]
    assert not guide.lead(model, 1.0)
    assert guide.stage(0.0) == (0, 0.0)
    assert guide.stage(1.0) == (len(guide.stages) - 1, 1.0)


def test_a_run_that_skips_ahead_rounds_all_that_is_due(floats: nn.Module) -> None:
    guide, model = guide_of(floats), begun(floats)
    assert guide.lead(model, 1.0)
    assert model.free == ()


def test_codes_stay_while_all_else_moves(floats: nn.Module) -> None:
    guide, model = guide_of(floats), begun(floats)
    guide.lead(model, 0.0)
    (first,) = guide.stages[0].layers
    before = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(3):
        optimizer.zero_grad()
        guide.errors(inputs(step), model(inputs(step)), step).log().mean().backward()
        optimizer.step()
    moved = {
        name
        for name, value in model.named_parameters()
        if not torch.equal(value, before.get_parameter(name))
    }
    assert f"network.{first}.weight" not in moved
    assert {f"network.{name}.weight" for name in model.free} <= moved
    assert {f"network.{name}.bias" for name in ("head", "middle", "again", "tail")} <= moved
    assert sum(name.endswith("ratio") for name in moved) == 1
    guide.lead(model, 1.0)
    guide.lead(before, 1.0)
    assert torch.equal(model.quantized().codes[first], before.quantized().codes[first])


def test_what_is_trained_is_the_quantized_network_in_the_end(floats: nn.Module) -> None:
    plan = PLAN.with_layer("tail", LayerPlan(weight_bits=None))
    guide, model = guide_of(floats, plan), begun(floats, plan)
    guide.lead(model, 1.0)
    model.eval()
    found = model.quantized()
    assert isinstance(found, QuantizedModel)
    assert torch.equal(found(inputs()), model(inputs()))
    assert torch.equal(found.codes["middle"], found.codes["again"])
    assert all(int(codes.abs().max()) <= 3 for codes in found.codes.values())
    assert "tail" not in found.codes


def test_what_is_in_float_makes_up_for_what_is_rounded(floats: nn.Module) -> None:
    """Against the same layers, rounded by themselves."""
    guide, model = guide_of(floats), begun(floats)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(300):
        guide.lead(model, step / 300)
        optimizer.zero_grad()
        guide.errors(inputs(step), model(inputs(step)), step).log().mean().backward()
        optimizer.step()
    plan = Plan.uniform(weight_bits=3, method="quantease", granularity="channel")
    plain = quantize(floats, plan, [inputs(seed) for seed in range(3)])
    unseen = inputs(1000, 16)
    with torch.no_grad():
        wanted = floats(unseen)
        mine, other = (functional.mse_loss(m(unseen), wanted) for m in (model.eval(), plain))
    assert float(mine) < 0.7 * float(other)


def test_everything_in_float_moves_as_fast_as_weights(floats: nn.Module) -> None:
    """Biases of layers that share a weight, and layers that stay in float, too."""
    plan = PLAN.with_layer("tail", LayerPlan(weight_bits=None))
    model = begun(floats, plan)
    names = {name for name, _ in model.named_parameters() if not name.endswith("ratio")}
    assert names <= model.rates.keys()
    weight = model.rates["network.middle.weight"]
    assert model.rates["network.middle.bias"] == model.rates["network.again.bias"] < weight
    # In units of the weight itself.
    largest = float(floats.get_submodule("tail").get_parameter("weight").detach().abs().max())
    assert model.rates["network.tail.weight"] == pytest.approx(weight * largest / 7, rel=1e-6)


def with_activations(weight_bits: int, activation_bits: int) -> Plan:
    return Plan.uniform(
        weight_bits=weight_bits, activation_bits=activation_bits, granularity="channel"
    )


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(3, 8), (8, 4)])
def test_activations_join_when_most_weights_are_rounded_unless_they_bring_more_error(
    floats: nn.Module, weight_bits: int, activation_bits: int
) -> None:
    plan = with_activations(weight_bits, activation_bits)
    with torch.no_grad():
        # The grid of outputs is from 0 to 1.
        floats.get_submodule("tail").get_parameter("weight").mul_(0.2)
        floats.get_submodule("tail").get_parameter("bias").fill_(0.5)
    guide = guide_of(floats, plan)
    crops = [inputs(seed) for seed in range(3)]
    model = TrainableModel(quantize(floats, plan, crops), "incremental", floats=floats).train()
    assert torch.equal(model(inputs()), floats(inputs()))
    joined: list[int] = []
    rounded: list[int] = []
    for percent in range(101):
        guide.lead(model, percent / 100)
        rounded.append(len(model.plan.resolve(floats)) - 1 - len(model.free))
        if model.has_joined:
            joined.append(guide.stage(percent / 100)[0])
        assert guide.is_complete(model) == (model.has_joined and not model.free)
    assert len(guide.stages) == 3
    assert joined[0] == (1 if weight_bits < activation_bits else 0)
    if joined[0] == 0:
        # Then all weights stay in float for most of the time.
        assert rounded == [0] * 90 + [3] * 11
    # Multipliers of 16 bits and biases of the accumulator now and then move a code by one.
    found = model.eval().quantized()
    assert found.activations is not None
    given = inputs(9)
    with torch.no_grad():
        ways = model(given), floats(given)
        apart, from_float = (float(functional.mse_loss(found(given), other)) for other in ways)
    assert apart < 0.5 * from_float


def test_activations_join_with_scales_of_the_network_as_it_is(floats: nn.Module) -> None:
    """Not with those of the start, whose rounding may have left ranges of no use."""
    plan = with_activations(8, 4)
    guide = guide_of(floats, plan)
    crops = [inputs(seed) for seed in range(3)]
    spoilt = copy.deepcopy(floats)
    with torch.no_grad():
        spoilt.get_submodule("head").get_parameter("weight").mul_(8.0)
    starts = [quantize(network, plan, crops) for network in (floats, spoilt)]
    models = [TrainableModel(start, "incremental", floats=floats) for start in starts]
    for model in models:
        guide.lead(model, 0.0)
    one, other = (model.eval()(inputs(9)) for model in models)
    assert torch.equal(one, other)


def test_other_forms_are_quantized_from_the_start(floats: nn.Module) -> None:
    crops = [inputs()]
    start = quantize(floats, with_activations(8, 8), crops)
    lsq = TrainableModel(start, "lsq")
    assert lsq.has_joined
    assert start.activations is not None
    with pytest.raises(SettingError, match="with bits for activations, found another one"):
        lsq.join_activations(start.activations)
    with pytest.raises(SettingError, match="with bits for activations, found another one"):
        begun(floats).join_activations(start.activations)


def test_it_stays_in_evaluation_mode(floats: nn.Module) -> None:
    model = begun(floats)
    assert model.training
    assert not model.network.training


def test_errors_are_those_from_the_float_network(floats: nn.Module) -> None:
    guide = guide_of(floats)
    given = inputs(5)
    found = guide.errors(given, floats(given) + 0.1, 0)
    torch.testing.assert_close(found, torch.full((4,), 0.01))


def test_a_batch_comes_twice_and_the_float_network_is_asked_once(floats: nn.Module) -> None:
    guide, asked = guide_of(floats), []
    floats.register_forward_hook(lambda _module, given, _output: asked.append(given))
    batches = [guide.batch_of(step) for step in range(6 * AGAIN)]
    assert sorted(batches) == sorted(2 * list(range(3 * AGAIN)))
    for step, batch in enumerate(batches):
        assert batches.index(batch) in (step, step - AGAIN)
        given = inputs(batch, 1)
        restored = torch.zeros(1, 2, 12, 12)
        found = guide.errors(given, restored, batch)
        if step % 50 == 0:
            count = len(asked)
            with torch.no_grad():
                wanted = floats(given)
            del asked[count:]
            torch.testing.assert_close(found[0], wanted.square().mean())
    assert len(asked) == 3 * AGAIN
    # A run that goes on in the middle does not know what was asked before.
    other = guide_of(floats)
    again = other.errors(inputs(batches[-1], 1), torch.zeros(1, 2, 12, 12), batches[-1])
    assert torch.equal(again, found)


class Pair(nn.Module):
    """Two layers between which channels can be scaled, and whose ranges are far apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 2, 3, padding=1)
        with torch.no_grad():
            self.first.weight[0] *= 30.0
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_ranges_are_equal_first_unless_activations_matter_most() -> None:
    torch.manual_seed(1)
    floats = Pair().eval()
    kept = copy.deepcopy(floats)

    def ranges(network: nn.Module) -> Tensor:
        weights = [network.get_submodule(n).get_parameter("weight") for n in ("first", "second")]
        return torch.stack([weights[0].abs().amax((1, 2, 3)), weights[1].abs().amax((0, 2, 3))])

    begins = guide_of(floats, PLAN).begins_with
    torch.testing.assert_close(begins(inputs()), floats(inputs()))
    one, other = ranges(begins).unbind()
    torch.testing.assert_close(one, other, rtol=1e-2, atol=0.0)
    begins = guide_of(floats, with_activations(8, 4)).begins_with
    torch.testing.assert_close(ranges(begins), ranges(kept))
    torch.testing.assert_close(ranges(floats), ranges(kept))


def test_the_order_and_the_codes_are_the_same_every_time(floats: nn.Module) -> None:
    models = [begun(floats), begun(floats)]
    for model in models:
        guide_of(floats).lead(model, 1.0)
    one, other = (model.quantized().codes for model in models)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_transposed_convolutions_of_groups() -> None:
    torch.manual_seed(4)
    floats = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2, padding=1)).eval()
    crops = [torch.rand(2, 4, 8, 8)]
    guide = IncrementalGuide(floats, PLAN, crops)
    model = TrainableModel(quantize(floats, PLAN), "incremental", floats=floats)
    guide.lead(model, 0.0)
    found = model.eval().quantized()
    assert torch.equal(found(crops[0]), model(crops[0]))
    assert found.scales["0"].numel() == 6


def test_each_layer_in_float_moves_by_the_metric_of_the_output(floats: nn.Module) -> None:
    guide, model = guide_of(floats), begun(floats)
    optimizer = guide.optimizer(model)
    weights = {f"network.{name}.weight" for name in ("head", "middle", "tail")}
    moved = [value for group in optimizer.param_groups for value in group["params"]]
    assert {id(value) for value in moved} == {id(model.get_parameter(name)) for name in weights}
    guide.lead(model, 0.0)
    (first,) = guide.stages[0].layers
    before = copy.deepcopy(model)
    guide.errors(inputs(), model(inputs()) + 0.1, 0).log().mean().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    for name in ("head", "middle", "tail"):
        after, earlier = (
            net.get_parameter(f"network.{name}.weight").detach() for net in (model, before)
        )
        step = after - earlier
        expected = 0.0 if name == first else 0.01
        assert float(step.square().mean().sqrt()) == pytest.approx(expected, rel=1e-3)


def test_a_rounded_layer_has_the_bias_that_goes_with_its_codes(floats: nn.Module) -> None:
    guide, model = guide_of(floats), begun(floats)
    (first,) = guide.stages[0].layers
    before = model.network.get_submodule(first).get_parameter("bias").detach().clone()
    guide.lead(model, 0.0)
    after = model.network.get_submodule(first).get_parameter("bias").detach()
    assert not torch.equal(before, after)
    # With it, the layer's outputs have the float layer's means.
    if first == "head":
        x = torch.cat([inputs(seed) for seed in range(3)])
        with torch.no_grad():
            found = model.network_now().get_submodule("head")(x).mean(dim=(0, 2, 3))
            wanted = floats.get_submodule("head")(x).mean(dim=(0, 2, 3))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_log_tells_how_near_it_was(floats: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    guide, model = guide_of(floats), begun(floats)
    with caplog.at_level("INFO"):
        guide.lead(model, 0.0)
        guide.errors(inputs(), floats(inputs()) + 0.01, 0)
        guide.lead(model, 1.0)
    assert "dB" not in caplog.messages[0]
    assert "(40.0 dB to the float network before)" in caplog.messages[1]


def test_other_forms_are_not_rounded_in_turn(floats: nn.Module) -> None:
    start = quantize(floats, PLAN)
    lsq = TrainableModel(start, "lsq")
    with pytest.raises(SettingError, match="expected a model of the incremental form"):
        guide_of(floats).lead(lsq, 0.5)
    with pytest.raises(SettingError, match="found 'lsq'"):
        lsq.freeze({"head": start.weights()["head"]}, {"head": None})


class Residual(nn.Module):
    """A trunk of uneven channels, in whose 8-bit form activations bring the most error."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            uneven = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(-1, 1, 1, 1)
            self.head.weight.mul_(uneven)
            self.tail.weight.div_(4.0 * uneven.reshape(1, -1, 1, 1))
            self.tail.bias.fill_(0.5)  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(x + 0.1 * self.body(x))


@pytest.mark.parametrize("sum_bits", [None, 16])
def test_it_begins_with_equal_streams_where_activations_matter_most_and_sums_are_wide(
    sum_bits: int | None,
) -> None:
    torch.manual_seed(4)
    floats = Residual().eval()
    plan = Plan.uniform(weight_bits=12, activation_bits=8, granularity="channel", sum_bits=sum_bits)
    begun = guide_of(floats, plan).begins_with
    changed = not torch.equal(begun.head.weight, floats.head.weight)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    assert changed == (sum_bits is not None)
    assert torch.allclose(begun(inputs()), floats(inputs()), atol=1e-6)
