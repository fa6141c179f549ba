"""The examples of networks of one's own train, and are studied by the commands that they show."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from quantisp.cli.main import main

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def trained(name: str, folder: Path) -> Path:
    weights = folder / f"{name}.safetensors"
    command = [sys.executable, EXAMPLES / f"{name}.py", "--steps", "2", "--batch", "2"]
    subprocess.run([*command, "--out", weights], check=True, capture_output=True, timeout=100)
    return weights


def commands_of(name: str) -> list[list[str]]:
    """What its docstring shows, behind ``quantisp``."""
    text = (EXAMPLES / f"{name}.py").read_text().split('"""')[1]
    text = re.sub(r"\\+\n", " ", text)
    return [shlex.split(line) for line in re.findall(r"quantisp (study .*)", text)]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["quantisp", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


@pytest.mark.parametrize("name", ["denoiser", "upscaler"])
def test_an_example_is_studied_by_its_command(
    name: str, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(EXAMPLES)
    trained(name, tmp_path)
    shown = commands_of(name)
    assert len(shown) == {"denoiser": 1, "upscaler": 2}[name]
    for number, words in enumerate(shown):
        # Where it was trained to, and fewer pictures and widths than shown.
        command = [re.sub(r"^out/", f"{tmp_path}/", word) for word in words]
        command[command.index("--out") + 1] = str(tmp_path / str(number))
        if "--method" not in command:
            command += ["--method", "all"]
        command[command.index("--method") + 1] = "rtn"
        run(monkeypatch, *command, "--images", picture, "--weight-bits", "6")
        found = json.loads((tmp_path / str(number) / "study.json").read_text())
        kinds = [layer["kind"] for layer in found["coverage"]]
        assert kinds.count("BatchNorm") == {"denoiser": 4, "upscaler": 0}[name]
        assert all(
            layer["weight_bits"] == [6] or layer["folded_into"] for layer in found["coverage"]
        )
    if name == "upscaler":
        of_network, of_program = (
            json.loads((tmp_path / run / "study.json").read_text())["rows"][-1] for run in "01"
        )
        assert of_program["psnr_db"] == pytest.approx(of_network["psnr_db"], abs=1e-3)


def test_evaluate_takes_a_degradation(
    picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.syspath_prepend(EXAMPLES)
    command = ("evaluate", "--model", "denoiser:build", "--degradation", "noise:25", "--json")
    run(monkeypatch, *command, "--images", picture)
    found = json.loads(capsys.readouterr().out)
    assert (found["cfa"], found["degradation"]) == (None, "noise:25")


def test_info_of_a_network_without_a_cfa(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.syspath_prepend(EXAMPLES)
    run(monkeypatch, "info", "upscaler:build", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["input"], found["output_factor"], found["CFA"]) == ("RGB", 2, None)
    # 5x5, 3x3 and 3x3, on the small picture; a quarter of its operations for each output pixel.
    assert found["receptive_field_px"] == [9, 9]
    assert found["macs_per_px"] == (3 * 32 * 25 + 32 * 32 * 9 + 32 * 12 * 9) / 4


def test_what_stays_in_float_is_on_the_screen(
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.syspath_prepend(EXAMPLES)
    command = ("study", "--model", "upscaler:build", "--degradation", "downscale:2")
    small = ("--images", picture, "--weight-bits", "6", "--out", tmp_path / "out")
    run(monkeypatch, *command, *small, "--skip-layers", "body.0")
    shown = " ".join(capsys.readouterr().out.split())
    assert "In float: 1 of 3 layers" in shown
    assert "body.0 (Conv2d): left in float, as asked for" in shown


def test_the_networks_are_what_they_say():
    sys.path.insert(0, str(EXAMPLES))
    try:
        import denoiser
        import upscaler
    finally:
        sys.path.remove(str(EXAMPLES))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in denoiser.build().modules()) == 4
    assert any(isinstance(m, nn.PixelShuffle) for m in upscaler.build().modules())
