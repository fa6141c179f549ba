"""Every mistake gets one line that says what to do, exit code 2, and nothing is written."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quantisp.cfa import CFAPattern
from quantisp.models import Provenance, build_preset, load_model_file, write_model_file
from quantisp.models.zoo import PACKAGED

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]


def picture(path: Path, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Path:
    """A picture of noise; ``size`` is width and height."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def truncated(folder: Path) -> None:
    whole = picture(folder / "whole.png").read_bytes()
    (folder / "whole.png").write_bytes(whole[: len(whole) // 2])


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no pictures": (lambda f: (f / "notes.txt").write_text("x"), "expected pictures"),
    "truncated PNG": (truncated, "cannot be decoded"),
    "not a picture": (lambda f: (f / "a.png").write_text("x"), "cannot be decoded"),
    "smaller than a tile": (lambda f: picture(f / "a.png", (3, 3)), "repeats every 4x4 px"),
    "grey": (lambda f: picture(f / "a.png", mode="L"), "convert it to RGB"),
    "CMYK": (lambda f: picture(f / "a.jpg", mode="CMYK"), "convert it to RGB"),
    "one bad among good": (
        lambda f: (picture(f / "a.png"), picture(f / "b.png", mode="L")),
        "b.png",
    ),
}


def check(outcome: tuple[int, str, str], message: str, out: Path) -> None:
    code, printed, complaint = outcome
    assert code == 2
    assert printed == ""
    assert complaint.startswith("quantisp: ")
    assert complaint.count("\n") == 1
    assert complaint.endswith("\n")
    assert message in complaint
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "name"), [("study", "out"), ("quantize", "a.safetensors"), ("evaluate", None)]
)
def test_what_is_no_seed(quantisp: Run, tmp_path: Path, command: str, name: str | None) -> None:
    out = tmp_path / (name or "none")
    written = [] if name is None else ["--out", out]
    width = ["--weight-bits", "4"] if command == "quantize" else []
    outcome = quantisp(command, "--seed", "2147483648", *width, *written)
    check(outcome, "expected a seed from 0 to 2^31 - 1, found 2147483648: correct --seed", out)


@pytest.mark.parametrize("command", ["study", "evaluate"])
@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_pictures(quantisp: Run, tmp_path: Path, case: str, command: str):
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    make, message = BAD_FOLDERS[case]
    make(folder)
    place = ["--out", out] if command == "study" else []
    check(quantisp(command, "--images", folder, *place), message, out)


def test_a_pair_without_its_partner(quantisp: Run, tmp_path: Path):
    inputs, targets, out = tmp_path / "in", tmp_path / "targets", tmp_path / "out"
    for folder, names in ((inputs, "ab"), (targets, "a")):
        folder.mkdir()
        for name in names:
            picture(folder / f"{name}.png")
    outcome = quantisp("study", "--inputs", inputs, "--targets", targets, "--out", out)
    check(outcome, "'b' in", out)


def test_a_good_picture_is_taken(quantisp: Run, tmp_path: Path):
    out = tmp_path / "out"
    arguments = ["--images", picture(tmp_path / "a.png"), "--weight-bits", "8", "--out", out]
    code, printed, complaint = quantisp("study", *arguments, "--method", "rtn")
    assert (code, complaint) == (0, "")
    assert "rtn, per channel" in printed
    names = {path.name for path in out.iterdir()}
    assert {"study.json", "study.csv", "run.json", "report.html", "psnr.svg", "psnr.png"} <= names


@pytest.mark.parametrize("widths", ["3", "17", "8-4", "x", "", "float-8", "8,,6", "none"])
def test_activation_widths(quantisp: Run, tmp_path: Path, widths: str):
    out = tmp_path / "out"
    outcome = quantisp("study", f"--activation-bits={widths}", "--out", out)
    check(outcome, "expected activation bits from 4 to 16, or float,", out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--observer", "max"], "expected one of mse, minmax, percentile, found 'max'"),
        (["--input-bits", "3"], "expected input bits from 4 to 16, found 3"),
        (["--sum-bits", "17"], "expected sum bits from 4 to 16, found 17"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_activation_settings(quantisp: Run, tmp_path: Path, options: list[str], message: str):
    out = tmp_path / "out"
    outcome = quantisp("study", "--activation-bits", "8", *options, "--out", out)
    check(outcome, message, out)


def test_a_width_of_sums_beside_float(quantisp: Run, tmp_path: Path):
    out = tmp_path / "out"
    outcome = quantisp("study", "--sum-bits", "12", "--out", out)
    check(outcome, "expected activation bits beside a width of sums", out)


def test_a_granularity_that_nothing_would_use(quantisp: Run, tmp_path: Path):
    out = tmp_path / "out"
    outcome = quantisp("study", "--method", "rtn:tensor", "--granularity", "channel", "--out", out)
    check(outcome, "leave out --granularity", out)


@pytest.mark.parametrize("widths", ["0", "1", "17", "8-4", "x", "", "4-", "-4", "4,,5", "4.5", "²"])
def test_widths(quantisp: Run, tmp_path: Path, widths: str):
    out = tmp_path / "out"
    outcome = quantisp("study", f"--weight-bits={widths}", "--out", out)
    check(outcome, "expected weight bits from 2 to 16", out)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--method", "best", "rtn"),
        ("--method", "", "at least one"),
        ("--granularity", "pixel", "tensor, channel"),
        ("--within", "-1", "0 dB or more"),
        ("--within", "nan", "0 dB or more"),
        ("--device", "abacus", "--device cpu"),
        ("--crop", "nobody", "astronaut, coffee, chelsea"),
        ("--crop", "coffee:1", "NAME:TOP,LEFT"),
        ("--crop", "coffee:5000,0", "inside"),
        ("--model", "nobody", "dephasenet-lite"),
        ("--model", "nobody:nothing", "cannot be imported"),
        ("--model", "nowhere.safetensors", "cannot read it"),
        ("--images", "nowhere", "nothing is at nowhere"),
        ("--degradation", "blur:3", "expected a degradation among mosaic"),
        ("--degradation", "mosaic:bayer", "the network's own CFA, rgbw-kodak"),
        ("--degradation", "noise:5", "fails on it"),
        ("--inputs", "nowhere", "found only --inputs: give both"),
        ("--skip-layers", "nobody", "'nobody' matches none"),
        ("--model", "nowhere.pt2", "cannot read it"),
        ("--bogus", "1", "No such option"),
    ],
)
def test_options(quantisp: Run, tmp_path: Path, option: str, value: str, message: str):
    out = tmp_path / "out"
    check(quantisp("study", option, value, "--out", out), message, out)


@pytest.mark.parametrize("case", ["damaged", "cut", "empty", "pickle", "another preset", "foreign"])
def test_weights_files(quantisp: Run, tmp_path: Path, case: str):
    path, out = tmp_path / "model.safetensors", tmp_path / "out"
    good = (PACKAGED / "dephasenet-lite.safetensors").read_bytes()
    messages = {
        "pickle": "is a pickle",
        "another preset": "another preset",
        "foreign": "format None",
    }
    if case == "damaged":
        path.write_bytes(bytes(reversed(good[:64])) + good[64:])
    elif case == "cut":
        path.write_bytes(good[:-1000])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "pickle":
        torch.save({"weight": torch.zeros(1)}, path)
    elif case == "foreign":
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(1)}, path)
    else:
        model = build_preset("dephasenet-lite", CFAPattern.named("rgbw-kodak"))
        provenance = Provenance(
            domain="srgb", command="", data="", date="", revision="", validation_psnr_db=""
        )
        pattern = CFAPattern.named("rgbw-kodak")
        write_model_file(path, model, preset="dephasenet", pattern=pattern, provenance=provenance)
    check(quantisp("study", "--model", path, "--out", out), messages.get(case, "is damaged"), out)


def test_another_study_is_not_overwritten(quantisp: Run, tmp_path: Path):
    out = tmp_path / "out"
    arguments = ["study", "--images", picture(tmp_path / "a.png"), "--method", "rtn"]
    assert quantisp(*arguments, "--weight-bits", "8", "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    code, _, complaint = quantisp(*arguments, "--weight-bits", "9", "--out", out)
    assert code == 2
    assert "not the same settings" in complaint
    assert complaint.count("\n") == 1
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_with_other_things_is_left_alone(quantisp: Run, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, complaint = quantisp("study", "--out", tmp_path)
    assert code == 2
    assert "thesis.tex" in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("allowed_bytes", [0, 100, 2000])
def test_no_space(tmp_path: Path, allowed_bytes: int):
    """A limit on the size of files stands in for a full disk: the system's error is of its kind."""
    picture(tmp_path / "a.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "quantisp.cli.main", "study", "--images", "a.png"]
    command += ["--method", "rtn"]
    ended = subprocess.run(
        [*command, "--weight-bits", "8", "--out", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (allowed_bytes,) * 2),
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("quantisp: cannot write")
    assert ended.stderr.count("\n") == 1
    # Whatever was written is whole, so that the same command goes on once there is space.
    assert not list(out.glob("study.*"))
    again = subprocess.run(
        [*command, "--weight-bits", "8", "--out", "out"], cwd=tmp_path, capture_output=True
    )
    assert again.returncode == 0


def test_packaged_weights_are_there():
    assert load_model_file("dephasenet-lite").provenance is not None
