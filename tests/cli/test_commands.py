"""What commands print, beyond what goes wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import quantisp
from quantisp.cli import progress
from quantisp.cli.main import main

pytestmark = pytest.mark.unit

Run = Callable[..., str]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must succeed, and return its standard output."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["quantisp", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert (ended.value.code or 0) == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(noise).save(path)
    return path


# The default rounds by auto, too, which takes minutes.
STUDY = ("study", "--method", "rtn", "--weight-bits", "8")


def test_info_of_the_packaged_model(printed: Run):
    facts = json.loads(printed("info", "dephasenet-lite", "--json"))
    assert facts["macs_per_px"] <= 150_000
    assert facts["macs_per_px"] == pytest.approx(sum(x["macs_per_px"] for x in facts["layers"]))
    assert facts["parameters"] == sum(layer["parameters"] for layer in facts["layers"])
    assert facts["provenance"]["command"].startswith("quantisp train")
    assert "rgbw-kodak" in printed("info", "dephasenet-lite")


def test_info_lists_what_there_is(printed: Run):
    facts = json.loads(printed("info", "--json"))
    assert "dephasenet-lite" in facts["packaged_models"]
    assert {"rgbw-kodak", "bayer", "x-trans"} <= facts["CFAs"].keys()
    assert {"rtn", "gptq", "auto"} <= set(facts["rounding_methods"])


def test_evaluate_prints_json_of_its_table(printed: Run, photo: Path):
    result = json.loads(printed("evaluate", "--images", photo, "--json"))
    assert result["images"]["photo"]["psnr_db"] == result["psnr_db"]
    assert f"{result['psnr_db']:.3f}" in printed("evaluate", "--images", photo)


def test_evaluate_obeys_a_plan(printed: Run, photo: Path, tmp_path: Path):
    plan = tmp_path / "plan.json"
    plan.write_text(quantisp.Plan.uniform(weight_bits=3).to_json())
    whole = json.loads(printed("evaluate", "--images", photo, "--json"))
    rounded = json.loads(printed("evaluate", "--images", photo, "--json", "--plan", plan))
    assert rounded["psnr_db"] < whole["psnr_db"] - 0.5


def test_study_prints_the_document_that_it_wrote(printed: Run, photo: Path, tmp_path: Path):
    out = tmp_path / "out"
    shown = printed(*STUDY, "--images", photo, "--out", out, "--json")
    assert shown == (out / "study.json").read_text()
    assert json.loads(shown)["schema"] == 1


def test_the_places_to_show_can_be_chosen(printed: Run, photo: Path, tmp_path: Path):
    out = tmp_path / "out"
    printed(*STUDY, "--images", photo, "--out", out, "--crop", "photo:0,0")
    assert (out / "crop-photo-0-0.png").is_file()


def test_a_log_gets_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = iter([0.0, 100.0, 100.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.ProgressDisplay() as display:
        # Resumed at 40 of 100: ten more in ten seconds leave fifty seconds.
        display.show("studying", 40, 100, "a.png")
        display.show("studying", 50, 100, "b.png")
    assert capsys.readouterr().err == "studying: b.png, 50% done, 50 s left\n"
