"""Rounding by what comes into each layer: against exhaustive search, and against the network."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import ModelError, SettingError
from quantisp.quantization import IntFormat, LayerPlan, Plan, find_layers, quantize
from quantisp.quantization.matrices import as_matrix, from_matrix
from quantisp.quantization.methods import auto
from quantisp.quantization.methods.gptq import gptq, output_error, round_by_gptq
from quantisp.quantization.methods.quantease import round_by_quantease, sweep
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.network import NetworkTask, RoundedNetwork
from quantisp.quantization.statistics import (
    FloatInputs,
    LayerStatistics,
    count_calls,
    layer_statistics,
)
from quantisp.quantization.watching import watch

LAYERS = ["head", "depthwise", "grouped", "up", "mix"]
FOUR_BITS = IntFormat(bits=4)


@pytest.fixture
def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(2, 1, 12, 10, generator=generator) for _ in range(4)]


def perturbed(network: nn.Module) -> nn.Module:
    other = copy.deepcopy(network)
    torch.manual_seed(0)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return other


def outputs(network: nn.Module, name: str, inputs: list[Tensor], weight: Tensor) -> Tensor:
    """What the layer gives with another weight, without its bias."""
    network = copy.deepcopy(network)
    layer = network.get_submodule(name)
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda *triple: seen.append(triple[2]))
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight)
        layer.get_parameter("bias").zero_()
        for x in inputs:
            network(x)
    if isinstance(layer, nn.Linear):
        seen = [value.movedim(-1, 1) for value in seen]
    return torch.cat(seen).double()


@pytest.mark.reference
@pytest.mark.parametrize("name", LAYERS)
def test_the_statistics_tell_the_error_of_the_outputs(
    zoo: nn.Module, inputs: list[Tensor], name: str
) -> None:
    """For every kind of layer: against its outputs, as PyTorch computes them."""
    other = perturbed(zoo)
    statistics = layer_statistics(other, name, FloatInputs(zoo, inputs, {name: 1}))
    layer = zoo.get_submodule(name)
    weight = layer.get_parameter("weight").detach()
    wanted = outputs(zoo, name, inputs, weight)
    errors, predicted = [], []
    for seed in (1, 2):
        changed = weight + 0.1 * torch.randn(
            weight.shape, generator=torch.Generator().manual_seed(seed)
        )
        given = outputs(other, name, inputs, changed)
        errors.append((given - wanted).square().sum(1).mean())
        matrix, target = (as_matrix(layer, value.double()) for value in (changed, weight))
        quadratic = ((matrix @ statistics.gram) * matrix).sum()
        predicted.append(quadratic - 2.0 * ((target @ statistics.cross) * matrix).sum())
        means = (matrix @ statistics.mean[:, :, None]).flatten()
        torch.testing.assert_close(means, given.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    # The rest does not depend on the changed weight.
    torch.testing.assert_close(
        errors[1] - errors[0], predicted[1] - predicted[0], rtol=1e-4, atol=1e-7
    )


@pytest.mark.unit
@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_becomes_the_weight_again(zoo: nn.Module, name: str) -> None:
    layer = zoo.get_submodule(name)
    weight = layer.get_parameter("weight").detach()
    assert torch.equal(from_matrix(layer, as_matrix(layer, weight), weight), weight)


@pytest.mark.unit
def test_layers_come_in_the_order_of_use(zoo: nn.Module, inputs: list[Tensor]) -> None:
    assert list(count_calls(zoo, inputs[0], LAYERS[::-1])) == LAYERS
    zoo.spare = nn.Linear(2, 2)
    with pytest.raises(ModelError, match="every layer to be used, 'spare' is not"):
        count_calls(zoo, inputs[0], [*LAYERS, "spare"])


def problem(seed: int, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """A weight, and correlated inputs' second moments."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, rows, k, generator=generator, dtype=torch.float64)
    mixing = torch.randn(k, k, generator=generator, dtype=torch.float64)
    columns = mixing @ torch.randn(k, 200, generator=generator, dtype=torch.float64)
    return weight, (columns @ columns.T / 200)[None]


def nearest_error(weight: Tensor, gram: Tensor, int_format: IntFormat) -> Tensor:
    rounded = round_to_nearest(weight[0].float(), int_format, "half_even", 0).dequantize()
    return output_error(weight, rounded[None].double(), gram)


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(4))
def test_little_is_left_of_the_best_codes_there_are(seed: int) -> None:
    """Against every choice of codes, at the scale that was chosen."""
    weight, gram = problem(seed, rows=1, k=5)
    int_format = IntFormat(bits=3)
    statistics = LayerStatistics(
        gram=gram, cross=gram, mean=torch.zeros(1, 5), float_mean=torch.zeros(1, 5), count=200
    )
    layer = nn.Linear(5, 1)
    found, _ = round_by_quantease(layer, weight[0].float(), int_format, "half_even", 0, statistics)
    scale = found.scale.double()
    every = torch.tensor(list(itertools.product(range(-3, 4), repeat=5)), dtype=torch.float64)
    errors = output_error(weight.expand(1, len(every), 5), every[None] * scale[:, None], gram)
    error = output_error(weight, found.dequantize().double()[None], gram)
    assert float(error) <= 1.5 * float(errors.min())
    assert float(error) < float(nearest_error(weight, gram, int_format))


def one_column_after_the_other(target: Tensor, gram: Tensor, scale: Tensor) -> Tensor:
    """GPTQ as its source writes it, of one matrix."""
    order = torch.argsort(gram.diagonal(), descending=True)
    steady = gram + 0.002 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.linalg.inv(steady[order][:, order])
    factor = torch.linalg.cholesky(inverse, upper=True)
    left, codes = target[:, order].clone(), torch.zeros_like(target)
    for index in range(len(gram)):
        code = (left[:, index] / scale).round().clamp(-7, 7)
        error = (left[:, index] - code * scale) / factor[index, index]
        left[:, index:] -= error[:, None] * factor[index, index:]
        codes[:, order[index]] = code
    return codes


@pytest.mark.reference
@pytest.mark.parametrize("block", [1, 5, 64])
def test_blocks_of_columns_give_what_one_after_the_other_gives(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("gptq", "quantease"):
        monkeypatch.setattr(f"quantisp.quantization.methods.{module}.BLOCK", block)
    weight, gram = problem(1, rows=6, k=24)
    codes, scale = gptq(weight, gram, FOUR_BITS, "half_even", shared=False)
    expected = one_column_after_the_other(weight[0], gram[0], scale[0])
    torch.testing.assert_close(codes[0], expected)
    swept = sweep(weight, gram, codes, scale, FOUR_BITS, "half_even")[0]
    for index in range(24):
        slope = (weight[0] - expected * scale[0, :, None]) @ gram[0, :, index]
        ideal = expected[:, index] + slope / (gram[0, index, index] * scale[0])
        expected[:, index] = ideal.round().clamp(-7, 7)
    torch.testing.assert_close(swept, expected)
    assert not torch.equal(swept, codes[0])


@pytest.mark.property
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_each_method_is_nearer_than_the_one_before(seed: int, bits: int) -> None:
    weight, gram = problem(seed, rows=6, k=24)
    int_format = IntFormat(bits=bits)
    codes, scale = gptq(weight, gram, int_format, "half_even", shared=False)
    by_gptq = output_error(weight, codes * scale[:, :, None], gram)
    statistics = LayerStatistics(
        gram=gram, cross=gram, mean=torch.zeros(1, 24), float_mean=torch.zeros(1, 24), count=200
    )
    found, _ = round_by_quantease(
        nn.Linear(24, 6), weight[0].float(), int_format, "half_even", 0, statistics
    )
    by_quantease = output_error(weight, found.dequantize().double()[None], gram)
    assert float(by_gptq.sum()) < 0.6 * float(nearest_error(weight, gram, int_format).sum())
    assert float(by_quantease.sum()) <= float(by_gptq.sum()) * (1 + 1e-6)
    assert int(codes.abs().max()) <= int_format.qmax


@pytest.mark.unit
def test_inputs_without_correlation_are_rounded_to_nearest() -> None:
    weight, _ = problem(0, rows=4, k=16)
    codes, scale = gptq(
        weight, torch.eye(16, dtype=torch.float64)[None], FOUR_BITS, "half_even", shared=False
    )
    assert torch.equal(codes, torch.round(weight / scale[:, :, None]).clamp(-7, 7))


@pytest.mark.unit
def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, gram = problem(0, rows=4, k=16)
    gram[:, 3] = gram[:, :, 3] = 0.0
    statistics = LayerStatistics(
        gram=gram, cross=gram, mean=torch.zeros(1, 16), float_mean=torch.zeros(1, 16), count=9
    )
    for method in (round_by_gptq, round_by_quantease):
        found, _ = method(
            nn.Linear(16, 4), weight[0].float(), FOUR_BITS, "half_even", 0, statistics
        )
        assert bool(found.dequantize().isfinite().all())


def error_of(network: nn.Module, zoo: nn.Module, inputs: list[Tensor]) -> float:
    with torch.no_grad():
        return float(torch.stack([(network(x) - zoo(x)).square().mean() for x in inputs]).mean())


@pytest.mark.unit
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("method", ["gptq", "quantease", "quantease-bias", "yaqa", "auto"])
def test_a_network_is_nearer_to_float_than_by_rounding_to_nearest(
    zoo: nn.Module, inputs: list[Tensor], method: str, granularity: str
) -> None:
    before = copy.deepcopy(zoo.state_dict())
    plan = Plan.uniform(weight_bits=4, method=method, granularity=granularity)
    if granularity == "channel":
        plan = plan.with_layer("up", LayerPlan(weight_bits=4, method=method))
    nearest = Plan.uniform(weight_bits=4, granularity=granularity)
    layers: list[tuple[int, int]] = []
    found = quantize(zoo, plan, inputs, on_layer=lambda *count: layers.append(count))
    unseen = [x.flip(3) for x in inputs]
    assert error_of(found, zoo, unseen) < 0.8 * error_of(quantize(zoo, nearest), zoo, unseen)
    assert list(found.codes) == LAYERS
    assert layers[-1] == (layers[-1][1],) * 2
    again = quantize(zoo, plan, inputs)
    assert all(torch.equal(found.codes[name], again.codes[name]) for name in LAYERS)
    assert all(torch.equal(value, before[name]) for name, value in zoo.state_dict().items())
    assert len(found.decisions) == (6 if method == "auto" else 0)


@pytest.mark.unit
def test_a_corrected_bias_takes_the_mean_error_away(zoo: nn.Module, inputs: list[Tensor]) -> None:
    def mean_errors(method: str) -> Tensor:
        plan = Plan.uniform(weight_bits=3, method=method)
        network = quantize(zoo, plan, inputs)
        with torch.no_grad():
            return torch.cat([network(x) - zoo(x) for x in inputs]).mean((0, 2, 3)).abs()

    assert float(mean_errors("quantease-bias").max()) < 1e-5
    assert float(mean_errors("quantease").max()) > 1e-3


@pytest.mark.unit
def test_auto_tries_yaqa_where_incremental_rounding_does_not_help(
    zoo: nn.Module, inputs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def useless(task: NetworkTask, base: nn.Module, *_: object) -> RoundedNetwork:
        return task.round_by(base, "rtn", [], task.report)

    monkeypatch.setattr(auto, "rounded_incrementally", useless)
    found = quantize(zoo, Plan.uniform(weight_bits=4, method="auto"), inputs)
    names = [line.split(":")[0] for line in found.decisions]
    assert names == ["rtn", "equalization", "mse", "incremental", "yaqa", "bias correction"]
    assert found.decisions[3].endswith(", left")
    assert found.decisions[4].endswith(", kept")


@pytest.mark.unit
def test_auto_leaves_a_step_that_does_not_help(zoo: nn.Module, inputs: list[Tensor]) -> None:
    found = quantize(zoo, Plan.uniform(weight_bits=4, method="auto"), inputs)
    assert found.decisions[0].startswith("rtn: mean squared error ")
    *tried, instead, last = found.decisions[1:]
    assert all(line.endswith((", kept", ", left")) for line in tried)
    assert [line.split(":")[0] for line in tried] == ["equalization", "mse", "incremental"]
    # Its error was far from what YAQA alone could mend.
    assert instead == "yaqa: not tried, for it is a part of incremental"
    assert last == "bias correction: not tried, for it is a part of incremental"
    helped = error_of(found, zoo, inputs)
    assert helped <= error_of(quantize(zoo, Plan.uniform(weight_bits=4, method="mse")), zoo, inputs)


@pytest.mark.unit
def test_calibration_that_does_not_fit_is_refused(zoo: nn.Module, inputs: list[Tensor]) -> None:
    plan = Plan.uniform(method="gptq")
    for nothing in (None, []):
        with pytest.raises(SettingError, match="at least 1 calibration inputs for gptq, found 0"):
            quantize(zoo, plan, nothing)
    with pytest.raises(SettingError, match="at least 2 calibration inputs for auto, found 1"):
        quantize(zoo, Plan.uniform(method="auto"), inputs[:1])
    with pytest.raises(SettingError, match="finite calibration inputs"):
        quantize(zoo, plan, [inputs[0] * float("nan")])


@pytest.mark.unit
def test_methods_can_be_mixed(zoo: nn.Module, inputs: list[Tensor]) -> None:
    plan = Plan.uniform(weight_bits=5).with_layer("mix", LayerPlan(weight_bits=4, method="gptq"))
    found, nearest = quantize(zoo, plan, inputs), quantize(zoo, Plan.uniform(weight_bits=5))
    for name in find_layers(zoo):
        assert torch.equal(found.codes[name], nearest.codes[name]) == (name != "mix")


class Twice(nn.Module):
    """One layer is called twice, by keyword; another shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight = self.conv.weight
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(input=torch.relu(self.conv(input=x.expand(-1, 4, -1, -1))))
        return self.drop(self.tied(x))


@pytest.mark.unit
def test_layers_ahead_are_seen_in_the_same_run(
    zoo: nn.Module, inputs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantisp.quantization.statistics.AHEAD", 3)
    calls = count_calls(zoo, inputs[0], LAYERS)
    runs: list[Tensor] = []
    hook = zoo.register_forward_pre_hook(lambda _, args: runs.append(args[0]))
    seen = FloatInputs(zoo, inputs, calls)
    found = {name: seen.of(name) for name in calls}
    hook.remove()
    assert len(runs) == len(inputs) * -(-len(LAYERS) // 3)
    for name, layer_inputs in found.items():
        alone = [[c.taken for c in watch(zoo, [name], x)[name]] for x in inputs]
        torch.testing.assert_close(layer_inputs, alone, rtol=0, atol=0)


@pytest.mark.unit
def test_a_layer_that_is_used_twice_is_seen_twice(inputs: list[Tensor]) -> None:
    net = Twice().eval()
    assert count_calls(net, inputs[0], ["tied", "conv"]) == {"conv": 2, "tied": 1}
    once, twice = (
        layer_statistics(net, "conv", FloatInputs(net, inputs, {"conv": n})).count for n in (1, 2)
    )
    assert (once, twice) == (4 * 240, 8 * 240)


@pytest.mark.unit
@pytest.mark.parametrize("method", ["gptq", "quantease", "auto"])
def test_shared_weights_share_their_codes_and_the_mode_stays(
    inputs: list[Tensor], method: str
) -> None:
    net = Twice().train()
    found = quantize(net, Plan.uniform(weight_bits=4, method=method), inputs)
    assert torch.equal(found.codes["conv"], found.codes["tied"])
    assert net.training
    assert found.training
    assert net.drop.training
