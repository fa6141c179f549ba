"""``quantisp quantize``, and what other commands make of its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    samples = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(samples).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


OWN = """
import torch
from quantisp.cfa import CFAPattern

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pattern = CFAPattern.named("bayer")
        self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, mosaic):
        return self.conv(mosaic)
"""


def test_a_file_that_other_commands_take(
    quantisp: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_to_command.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    factory, out, folder = "own_to_command:Own", tmp_path / "w6.safetensors", tmp_path / "study"
    options = ["--weight-bits", "6", "--method", "mse", "--out", out]
    code, shown, _ = quantisp("quantize", "--model", factory, *options)
    assert code == 0
    assert "27 in 6 bits" in shown
    code, shown, _ = quantisp("info", factory, "--weights", out, "--json")
    facts = json.loads(shown)
    assert code == 0
    assert {layer["weight_bits"] for layer in facts["layers"]} == {6}
    assert facts["plan"]["default"]["granularity"] == "channel"
    assert facts["provenance"]["command"].startswith("quantisp quantize")
    assert (facts["weights_in_codes"], facts["bytes_of_codes"]) == (27, 20)
    _, shown, _ = quantisp("info", factory, "--weights", out)
    assert "weight bits" in shown
    model = ("--model", factory, "--weights", out, "--images", photo)
    code, shown, _ = quantisp("evaluate", *model, "--json")
    assert code == 0
    assert json.loads(shown)["model"] == "w6"
    code, _, complaint = quantisp("study", *model, "--out", folder)
    assert code == 2
    assert "expected a float network to study, w6 is quantized already" in complaint
    assert complaint.count("\n") == 1
    assert not folder.exists()


def test_a_plan_from_a_file(quantisp: Run, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "mixed.safetensors"
    content = {"schema": 1, "default": {"weight_bits": 8}, "layers": {"tail": {"weight_bits": 12}}}
    plan.write_text(json.dumps(content))
    code, shown, _ = quantisp("quantize", "--plan", plan, "--out", out, "--json")
    facts = json.loads(shown)
    assert code == 0
    assert facts["layers"]["tail"]["weight_bits"] == 12
    assert facts["size_bytes"] == out.stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --weight-bits or --plan"),
        (["--weight-bits", "1"], "weight bits are 2 to 16, found 1"),
        (["--weight-bits", "8", "--method", "nothing"], "expected a method among"),
        (["--weight-bits", "8", "--plan", "plan.json"], "found --weight-bits beside it"),
        (["--method", "rtn", "--plan", "plan.json"], "found --method beside it"),
        (["--plan", "nowhere.json"], "cannot read it"),
        (["--weight-bits", "8", "--model", "nothing"], "no packaged model is called 'nothing'"),
        (["--weight-bits", "8", "--method", "rtn", "--calibration", "x"], "no calibration"),
        (["--weight-bits", "8", "--calibration", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_get_one_line_and_nothing_is_written(
    quantisp: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    code, shown, complaint = quantisp("quantize", "--out", tmp_path / "o.safetensors", *options)
    assert (code, shown) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--qat", "lsq"], "expected --weight-bits or --plan beside --qat"),
        (["--method", "mse"], "expected --weight-bits or --plan beside --method"),
        (["--granularity", "tensor"], "expected --weight-bits or --plan beside --granularity"),
        (["--weight-bits", "4"], "give --init beside --weight-bits"),
        (["--weight-bits", "4", "--qat", "pact"], "among incremental, lsq, plain, found 'pact'"),
        (["--weight-bits", "1"], "weight bits are 2 to 16"),
    ],
)
def test_fine_tuning_is_asked_for_in_full(
    quantisp: Run, photo: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "run"
    code, shown, complaint = quantisp(
        "train", "--data", photo, "--out", out, "--steps", "1", *options
    )
    assert (code, shown) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not out.exists()
