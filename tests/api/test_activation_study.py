"""Studies of weight by activation widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import tiny_net
from torch import Tensor, nn

import quantisp
from quantisp.api import evaluate
from quantisp.errors import ModelError, SettingError
from quantisp.evaluation import networks
from quantisp.quantization import Plan, quantizing
from quantisp.records import StudyResult

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def counted() -> list[str]:
    return []


@pytest.fixture(scope="module")
def result(data: Path, counted: list[str], tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for room, name in ((networks, "quantize"), (networks, "capture"), (quantizing, "capture")):
            real = getattr(room, name)

            def noted(*arguments: Any, real: Any = real, name: str = name, **options: Any) -> Any:
                counted.append(name)
                return real(*arguments, **options)

            patch.setattr(room, name, noted)
        return quantisp.study(
            tiny_net(),
            data / "val",
            weight_bits=[4, 8],
            activation_bits=[6, None, 12],
            granularities=["channel"],
            observer="minmax",
            out=out,
        )


def test_the_table_has_every_pair_of_widths(result: StudyResult) -> None:
    pairs = [(row.weight_bits, row.activation_bits) for row in result.rows]
    assert pairs == [(4, None), (4, 12), (4, 6), (8, None), (8, 12), (8, 6)]
    to_float = {pair: row.psnr_to_float_db for pair, row in zip(pairs, result.rows, strict=True)}
    assert to_float[8, 6] < to_float[8, 12]
    assert to_float[4, 12] < to_float[8, 12]
    assert [choice.activation_bits for choice in result.recommendation] == [None, 12, 6]


def test_weights_are_rounded_once_for_all_activation_widths(
    result: StudyResult, counted: list[str]
) -> None:
    assert result.rows
    # Once more for the crops, which show two weight widths of float activations.
    assert counted.count("quantize") <= 4
    assert counted.count("capture") == 1


def test_the_protocol_tells_what_the_input_is(result: StudyResult) -> None:
    assert str(result.protocol["input_rounding"]).startswith("to 10 bits")
    assert "integers simulated in float32" in str(result.protocol["activations"])


def test_the_input_is_rounded_in_the_float_network_too(data: Path) -> None:
    found = [
        quantisp.study(tiny_net(), data / "val", weight_bits=[8], input_bits=bits).float.psnr_db
        for bits in (None, 4)
    ]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_bits": [3]}, "expected activation bits from 4 to 16, found 3"),
        ({"activation_bits": [8], "input_bits": 17}, "expected input bits from 4 to 16, found 17"),
        ({"activation_bits": [8], "observer": "max"}, "expected one of mse, minmax, percentile"),
        ({"activation_bits": []}, "expected at least one width"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_bad_settings(data: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        quantisp.study(tiny_net(), data / "val", weight_bits=[8], out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


class Sine(nn.Module):
    """Of which integers know nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.mix(x))


class FixedHeight(nn.Module):
    """Runs at every size, but only the one that it saw is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) if int(x.shape[2]) % 96 else self.mix(x).relu()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Sine(), r"operations that integers can do, found aten\.sin\.default at"),
        (FixedHeight(), "expected inputs of 96x96 px for activations in integers, .*found 40x40"),
    ],
)
def test_what_integers_cannot_do_is_refused_before_anything_is_measured(
    data: Path, tmp_path: Path, network: nn.Module, message: str
) -> None:
    options: dict[str, Any] = {"degradation": "noise:10", "weight_bits": [8]}
    with pytest.raises(ModelError, match=message):
        quantisp.study(
            network, data / "val", activation_bits=[None, 8], out=tmp_path / "out", **options
        )
    assert not (tmp_path / "out").exists()
    assert quantisp.study(network, data / "val", **options).rows


def test_a_plan_with_activations_is_evaluated(data: Path) -> None:
    plan = Plan.uniform(weight_bits=8, activation_bits=12)
    found = evaluate(tiny_net(), data / "val", plan=plan)
    reference = evaluate(tiny_net(), data / "val")
    assert abs(found.psnr_db - reference.psnr_db) < 1.0
    assert found.psnr_db != reference.psnr_db
