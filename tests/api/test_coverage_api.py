"""What is not quantized is named: in the result, in the report and on the screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import write_pictures
from torch import Tensor, nn

from quantisp.api import evaluate, study
from quantisp.errors import PlanError
from quantisp.quantization import Plan
from quantisp.records import StudyResult
from quantisp.reports import coverage_lines, report_page, study_markdown

pytestmark = pytest.mark.unit


class Mixed(nn.Module):
    """Layers of every kind, one that no quantizer knows, and two normalisations."""

    def __init__(self, *, unknown: bool = True) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.PReLU(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.other_norm = nn.BatchNorm2d(8)
        self.mix = nn.Linear(8, 8)
        self.down = nn.Conv2d(8, 8, 2, stride=2)
        self.up = nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.gain = nn.Parameter(torch.ones(3, 1, 1)) if unknown else None
        with torch.no_grad():
            self.norm.running_var.fill_(0.5)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.act(self.norm(self.head(rgb)))
        y = self.depthwise(x)
        x = x + self.other_norm(y) * 0.1 + 0.1 * y
        x = self.mix(x.movedim(1, 3)).movedim(3, 1)
        out = rgb + 0.05 * self.up(self.down(x))
        return out if self.gain is None else out * self.gain


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("coverage") / "pictures", count=1, px=48)


def studied(pictures: Path, network: nn.Module, **changes: Any) -> StudyResult:
    options = {"degradation": "noise:10", "weight_bits": [4, 5, 6], "granularities": ["channel"]}
    return study(network, pictures, **{**options, **changes})


def test_every_module_with_parameters_is_in_the_result(pictures: Path, tmp_path: Path):
    result = studied(pictures, Mixed(), skip_layers=["."], out=tmp_path / "out")
    found = {layer.name: (layer.kind, layer.weight_bits) for layer in result.coverage}
    widths = (4, 5, 6)
    assert found == {
        "": ("Mixed", ()),
        "head": ("Conv2d", widths),
        "norm": ("BatchNorm", ()),
        "act": ("PReLU", ()),
        "depthwise": ("Conv2d", widths),
        "other_norm": ("BatchNorm2d", ()),
        "mix": ("Linear", widths),
        "down": ("Conv2d", widths),
        "up": ("ConvTranspose2d", widths),
    }
    by_name = {layer.name: layer for layer in result.coverage}
    assert by_name["norm"].folded_into == "head"
    assert not by_name["norm"].in_float
    assert "'depthwise', the layer before it, is used elsewhere" in by_name["other_norm"].reason
    assert by_name[""].reason == "left in float, as asked for; no quantizer knows Mixed"
    assert by_name["head"].weights == 8 * 27
    written = json.loads((tmp_path / "out" / "study.json").read_text())["coverage"]
    assert [layer["name"] for layer in written] == list(by_name)


def test_what_stays_in_float_is_said_everywhere(pictures: Path):
    result = studied(pictures, Mixed(), skip_layers=[".", "m*"])
    (line,) = coverage_lines(result)
    assert line.startswith("In float: 4 of 8 layers with parameters (")
    for part in (". (Mixed): left in float", "mix (Linear)", "act (PReLU): its parameters have"):
        assert part in line
    assert line in study_markdown(result).replace("\\", "")
    page = report_page(result, (), {})
    assert "folded into head" in page
    assert "4 to 6" in page


def test_nothing_is_said_where_everything_is_quantized(pictures: Path):
    result = studied(pictures, nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)))
    assert coverage_lines(result) == []
    assert "Every layer&#x27;s weights; biases stay in float." in report_page(result, (), {})


class Sharpened(nn.Conv2d):
    """A convolution whose weight is another one, and a fixed filter before it."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3, padding=1)
        self.register_buffer("kernel", torch.full((3, 1, 3, 3), 1 / 9))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        blurred = nn.functional.conv2d(input, self.kernel, padding=1, groups=3)
        return self._conv_forward(2 * input - blurred, self.weight * 2, self.bias)


def test_weights_that_are_computed_and_buffers_are_named(pictures: Path):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Sharpened())
    with pytest.raises(PlanError, match=r"found 1 \(Sharpened\), which no .* --skip-layers 1$"):
        studied(pictures, network)
    result = studied(pictures, network, skip_layers=["1"])
    first, second = coverage_lines(result)
    assert first.startswith(
        "In float: 1 of 2 layers with parameters (90.00% of them): 1 (Sharpened)"
    )
    assert second == "In float, too: 1.kernel (27 numbers): a buffer, which no plan quantizes"
    assert "1.kernel" in report_page(result, (), {})


def test_a_layer_that_is_skipped_keeps_its_weights(pictures: Path):
    every = studied(pictures, Mixed(unknown=False), weight_bits=[2])
    fewer = studied(pictures, Mixed(unknown=False), weight_bits=[2], skip_layers=["head", "up"])
    assert every.rows[0].psnr_to_float_db < fewer.rows[0].psnr_to_float_db


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        ([], r"found \. \(Mixed\), which no quantizer knows: .* --skip-layers \.$"),
        (["head"], r"--skip-layers \.,head$"),
        ([".", "tail"], "'tail' matches none: choose among"),
        (["*"], "leaves out all of them"),
    ],
)
def test_a_layer_that_no_quantizer_knows_must_be_named(
    pictures: Path, tmp_path: Path, skip: list[str], message: str
):
    with pytest.raises(PlanError, match=message):
        studied(pictures, Mixed(), skip_layers=skip, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluating_a_plan_folds_as_a_study_does(pictures: Path):
    network = Mixed(unknown=False)
    result = studied(pictures, network, weight_bits=[4])
    plan = Plan.uniform(weight_bits=4, granularity="channel")
    quality = evaluate(network, pictures, degradation="noise:10", plan=plan)
    assert quality.psnr_db == pytest.approx(result.rows[0].psnr_db, abs=1e-5)


@pytest.mark.parametrize("method", ["rtn", "mse", "aciq", "bit-split", "gptq", "quantease-bias"])
def test_every_method_takes_every_kind_of_layer(pictures: Path, method: str):
    result = studied(pictures, Mixed(unknown=False), weight_bits=[5], methods=[method])
    assert result.rows[0].psnr_to_float_db > 30.0
    assert {layer.name for layer in result.coverage if layer.in_float} == {"act", "other_norm"}
