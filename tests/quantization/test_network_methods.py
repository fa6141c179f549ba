"""Methods that treat layers together: what must stay, what must fall, and what is not theirs."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import PlanError
from quantisp.quantization import IntFormat, LayerPlan, Plan, QuantizedModel, descent, quantize
from quantisp.quantization.methods import adaround, incremental
from quantisp.quantization.methods.adaround import SoftCodes, round_adaptively
from quantisp.quantization.methods.brecq import find_blocks
from quantisp.quantization.methods.equalization import Pair, equalize, find_pairs
from quantisp.quantization.methods.gptq import output_error
from quantisp.quantization.statistics import LayerStatistics


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(torch.relu_(self.conv1(x))).add_(x)


class Residual(nn.Module):
    """Two residual blocks between a head and a tail, whose input another layer looks at, too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.head = nn.Conv2d(1, 6, 3, padding=1)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.middle = nn.Conv2d(6, 6, 1)
        self.tail = nn.Conv2d(6, 2, 3, padding=1)
        self.side = nn.Conv2d(6, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.blocks:
            x = block(x)
        x = self.middle(x)
        return self.tail(x) + self.side(x)


@pytest.fixture
def residual() -> nn.Module:
    return Residual().eval()


@pytest.fixture
def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(4, 1, 24, 20, generator=generator) for _ in range(6)]


def error_of(network: nn.Module, other: nn.Module, inputs: list[Tensor]) -> float:
    with torch.no_grad():
        return float(torch.stack([(network(x) - other(x)).square().mean() for x in inputs]).mean())


def rounded(network: nn.Module, method: str, inputs: list[Tensor] | None) -> QuantizedModel:
    plan = Plan.uniform(weight_bits=4, method=method, granularity="channel")
    return quantize(network, plan, inputs)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("method", "share"),
    [
        ("brecq", 0.5),
        ("bias-correction", 0.95),
        ("incremental", 0.3),
        ("auto", 0.3),
    ],
)
def test_unseen_inputs_are_nearer_to_float(
    residual: nn.Module, inputs: list[Tensor], method: str, share: float
) -> None:
    """Than by rounding to nearest with the same scales; and the same inputs give the same codes."""
    before = copy.deepcopy(residual.state_dict())
    found, again = (rounded(residual, method, inputs) for _ in range(2))
    unseen = [x.flip(2) for x in inputs]
    nearest = error_of(rounded(residual, "mse", None), residual, unseen)
    assert error_of(found, residual, unseen) < share * nearest
    assert all(torch.equal(found.codes[name], again.codes[name]) for name in found.codes)
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())


@pytest.mark.unit
def test_adaround_gives_the_same_codes_for_the_same_inputs(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    """What it brings is tested by layers: in so small a network the output hangs on last bits."""
    before = copy.deepcopy(residual.state_dict())
    found, again = (rounded(residual, "adaround", inputs[:2]) for _ in range(2))
    assert all(torch.equal(value, before[name]) for name, value in residual.state_dict().items())
    assert all(torch.equal(codes, again.codes[name]) for name, codes in found.codes.items())


@pytest.mark.unit
@pytest.mark.parametrize("method", ["brecq", "incremental"])
def test_a_seed_chooses_what_is_drawn(
    residual: nn.Module, inputs: list[Tensor], method: str
) -> None:
    plan = Plan.uniform(weight_bits=4, method=method, granularity="channel")
    by_default, zero, one, again = (
        quantize(residual, plan, inputs, **seed)
        for seed in ({}, {"seed": 0}, {"seed": 1}, {"seed": 1})
    )
    for name, codes in by_default.codes.items():
        assert torch.equal(codes, zero.codes[name])
        assert torch.equal(one.codes[name], again.codes[name])
    assert any(not torch.equal(one.codes[name], zero.codes[name]) for name in zero.codes)


@pytest.mark.unit
def test_inputs_of_several_sizes_are_only_mixed_with_their_own(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    found = rounded(residual, "incremental", [*inputs, *(x[..., :16] for x in inputs[:2])])
    unseen = [x.flip(2) for x in inputs]
    nearest = error_of(rounded(residual, "mse", None), residual, unseen)
    assert error_of(found, residual, unseen) < 0.3 * nearest


@pytest.mark.unit
def test_the_float_network_is_run_once_for_two_steps(
    residual: nn.Module, inputs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incremental, "STEPS", 20)
    calls: Counter[bool] = Counter()

    def count(_network: nn.Module, given: tuple[Tensor], _output: Tensor) -> None:
        if len(given[0]) == descent.BATCH:
            calls[torch.is_grad_enabled()] += 1

    residual.register_forward_hook(count)
    rounded(residual, "incremental", inputs)
    assert calls == {True: 20, False: 10}


@pytest.mark.unit
def test_the_methods_come_in_the_order_of_their_worth(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    unseen = [x.flip(3) for x in inputs]
    errors = [
        error_of(rounded(residual, method, inputs), residual, unseen)
        for method in ("incremental", "quantease", "gptq")
    ]
    assert errors == sorted(errors)


@pytest.mark.unit
def test_only_the_layers_of_the_method_are_changed(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    plan = Plan.uniform(weight_bits=4, method="incremental").with_layer(
        "tail", LayerPlan(weight_bits=4)
    )
    plan = plan.with_layer("side", LayerPlan(weight_bits=None))
    found = quantize(residual, plan, inputs)
    nearest = quantize(residual, Plan.uniform(weight_bits=4))
    assert torch.equal(found.codes["tail"], nearest.codes["tail"])
    assert torch.equal(
        found.network.get_parameter("tail.bias"), residual.get_parameter("tail.bias")
    )
    assert torch.equal(
        found.network.get_parameter("side.weight"), residual.get_parameter("side.weight")
    )
    assert not torch.equal(found.codes["middle"], nearest.codes["middle"])


@pytest.mark.unit
def test_two_methods_of_whole_networks_are_refused(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    plan = Plan.uniform(weight_bits=4, method="brecq").with_layer(
        "tail", LayerPlan(weight_bits=4, method="auto")
    )
    with pytest.raises(PlanError, match="one method that rounds layers together, found auto and"):
        quantize(residual, plan, inputs)


@pytest.mark.unit
@pytest.mark.parametrize(("method", "longest"), [("incremental", 0.03), ("auto", 0.25)])
def test_progress_goes_from_nothing_to_everything(
    residual: nn.Module, inputs: list[Tensor], method: str, longest: float
) -> None:
    """In small parts, but for what ``auto`` leaves out."""
    shares = [0.0]
    plan = Plan.uniform(weight_bits=4, method=method)
    quantize(residual, plan, inputs, on_layer=lambda done, total: shares.append(done / total))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert max(after - before for before, after in itertools.pairwise(shares)) < longest


@pytest.mark.unit
def test_auto_ends_where_nothing_can_be_seen(residual: nn.Module, inputs: list[Tensor]) -> None:
    plan = Plan.uniform(weight_bits=14, method="auto", granularity="channel")
    found = quantize(residual, plan, inputs)
    nearest = quantize(residual, Plan.uniform(weight_bits=14, granularity="channel"))
    assert len(found.decisions) == 2
    assert found.decisions[1] == (
        "equalization and what follows: not tried, for the error cannot be seen"
    )
    assert all(torch.equal(found.codes[name], nearest.codes[name]) for name in found.codes)


# Equalization


@pytest.mark.property
def test_equalization_changes_ranges_and_nothing_else(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    names = [n for n, m in residual.named_modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        residual.get_parameter("blocks.0.conv1.weight").mul_(
            torch.logspace(-2, 2, 8)[:, None, None, None]
        )
    found = equalize(residual, inputs[0], names)
    with torch.no_grad():
        power = float(residual(inputs[0]).square().mean())
    assert error_of(found, residual, inputs) < 1e-9 * power
    for block in ("blocks.0", "blocks.1"):
        first = found.get_parameter(f"{block}.conv1.weight").abs().flatten(1).amax(1)
        second = (
            found.get_parameter(f"{block}.conv2.weight").abs().transpose(0, 1).flatten(1).amax(1)
        )
        torch.testing.assert_close(first, second)


@pytest.mark.unit
def test_layers_follow_each_other_only_where_nothing_else_looks(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    names = [n for n, m in residual.named_modules() if isinstance(m, nn.Conv2d)]
    assert find_pairs(residual, inputs[0], names) == [
        Pair(first="blocks.0.conv1", second="blocks.0.conv2"),
        Pair(first="blocks.1.conv1", second="blocks.1.conv2"),
    ]
    assert find_pairs(residual, inputs[0], ["blocks.0.conv1", "tail"]) == []


@pytest.mark.unit
def test_equalization_helps_where_one_scale_serves_a_layer(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    factors = torch.logspace(-2, 2, 8)
    with torch.no_grad():
        residual.get_parameter("blocks.0.conv1.weight").mul_(factors[:, None, None, None])
        residual.get_parameter("blocks.0.conv1.bias").mul_(factors)
        residual.get_parameter("blocks.0.conv2.weight").div_(factors[None, :, None, None])
    plans = [Plan.uniform(weight_bits=6, method=method) for method in ("mse", "equalization")]
    plain, equal = (
        error_of(quantize(residual, plan, given), residual, inputs)
        for plan, given in zip(plans, (None, inputs), strict=True)
    )
    assert equal < 0.2 * plain
    decided = quantize(residual, Plan.uniform(weight_bits=6, method="auto"), inputs).decisions
    assert decided[1].startswith("equalization: ")
    assert decided[1].endswith(", kept")


# Blocks


@pytest.mark.unit
def test_a_block_is_the_smallest_module_with_two_layers(
    residual: nn.Module, inputs: list[Tensor]
) -> None:
    names = [n for n, m in residual.named_modules() if isinstance(m, nn.Conv2d)]
    assert find_blocks(residual, inputs[0], names) == {
        "head": ["head"],
        "blocks.0": ["blocks.0.conv1", "blocks.0.conv2"],
        "blocks.1": ["blocks.1.conv1", "blocks.1.conv2"],
        "middle": ["middle"],
        "tail": ["tail"],
        "side": ["side"],
    }
    assert list(find_blocks(nn.Sequential(residual), inputs[0], ["0.head", "0.tail"])) == ["0"]
    assert list(
        find_blocks(nn.Sequential(residual), inputs[0], [f"0.{name}" for name in names])
    ) == [f"0.{name}" for name in ("head", "blocks.0", "blocks.1", "middle", "tail", "side")]


# AdaRound


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(4))
def test_gates_end_near_the_best_of_all_ups_and_downs(seed: int) -> None:
    """Against every choice between the two integers next to each weight."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, 8, generator=generator)
    mixing = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    gram = (mixing @ mixing.T)[None]
    statistics = LayerStatistics(
        gram=gram, cross=gram, mean=torch.zeros(1, 8), float_mean=torch.zeros(1, 8), count=9
    )
    layer = nn.Linear(8, 1)
    found, bias = round_adaptively(layer, weight, IntFormat(bits=4), "half_even", 0, statistics)
    assert bias is None
    scale = found.scale.double()
    floor = (weight.double() / scale).floor()
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)), dtype=torch.float64)
    codes = (floor + every).clamp(-7, 7)
    errors = output_error(weight.double()[None].expand(1, 256, 8), (codes * scale)[None], gram)
    error = float(output_error(weight.double()[None], found.dequantize().double()[None], gram))
    assert error <= errors.sort().values[0, 12]


@pytest.mark.unit
def test_soft_codes_begin_at_the_weights_and_end_whole() -> None:
    quotients = torch.linspace(-8.4, 8.4, 57)
    soft = SoftCodes(quotients, IntFormat(bits=4))
    inside = quotients.abs() <= 7.0
    torch.testing.assert_close(soft.codes()[inside], quotients[inside], atol=0.011, rtol=0)
    whole = soft.rounded()
    assert torch.equal(whole, whole.round())
    assert float(whole.abs().max()) == 7.0
    assert bool(((whole - quotients)[inside].abs() < 0.5 + 1e-6).all())


@pytest.mark.unit
def test_the_regulariser_waits_and_then_favours_decided_gates() -> None:
    half = SoftCodes(torch.full((4,), 0.5), IntFormat(bits=4))
    sure = SoftCodes(torch.full((4,), 0.99), IntFormat(bits=4))
    assert half.undecided(adaround.WARM_UP / 2).item() == 0.0
    assert half.undecided(0.9).item() == pytest.approx(4.0)
    assert sure.undecided(0.9).item() < 0.5
