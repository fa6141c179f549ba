"""``quantisp demosaic`` and ``quantisp fit``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantisp.cfa import CFAPattern, parse_pattern
from quantisp.cfa.raw import write_dng
from quantisp.cfa.raw_image import RawImage

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dng(tmp_path: Path) -> Path:
    codes = np.random.default_rng(0).integers(100, 900, (32, 40)).astype(np.uint16)
    raw = RawImage(
        codes=codes,
        pattern=CFAPattern.named("rgbw-kodak"),
        black=(64.0,) * 16,
        white=1023.0,
        bits=10,
    )
    write_dng(tmp_path / "a.dng", raw)
    return tmp_path / "a.dng"


def test_a_picture_and_its_record(quantisp: Run, dng: Path, tmp_path: Path):
    arguments = (
        "demosaic",
        dng,
        "--model",
        "bilinear",
        "--format",
        "jpeg",
        "--out",
        tmp_path / "o",
    )
    code, printed, complaint = quantisp(*arguments, "--json")
    assert (code, complaint) == (0, "")
    (facts,) = json.loads(printed)
    assert facts["white_balance"] == "grey world"
    with Image.open(facts["path"]) as image:
        assert (image.format, image.size) == ("JPEG", (40, 32))
    code, printed, _ = quantisp(*arguments)
    assert code == 0
    assert "kept" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "dephasenet-lite-bayer"], "expected a model for rgbw-kodak"),
        (["--model", "menon"], "expected a Bayer CFA"),
        (["--to", "x-trans"], "expected --to bayer"),
        (["--to", "bayer", "--tone", "srgb"], "expected no --tone"),
        (["--to", "bayer", "--format", "png"], "expected no --format"),
        (["--tone", "film"], "expected --tone"),
        (["--format", "gif"], "expected --format"),
        (["--domain", "log"], "expected --domain"),
        (["--tile", "0"], "see --tile"),
        (["--method", "rtn"], "expected --bits beside --method"),
        (["--granularity", "tensor"], "expected --bits beside --granularity"),
        (["--bits", "40"], "bits"),
        (["--white-balance", "as-shot"], "--white-balance grey-world"),
        (["--white-balance", "2,1"], "correct --white-balance"),
        (["--width", "40"], "leave that out"),
        (["--device", "gpu"], "--device cpu"),
    ],
    ids=str,
)
def test_mistakes(quantisp: Run, dng: Path, tmp_path: Path, arguments: list[str], message: str):
    code, printed, complaint = quantisp("demosaic", dng, *arguments, "--out", tmp_path / "o")
    assert (code, printed) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_filters_are_fitted_and_used(quantisp: Run, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((160, 160), Image.Resampling.BICUBIC).save(tmp_path / "p.png")
    out = tmp_path / "fitted.safetensors"
    picture = tmp_path / "p.png"
    code, printed, complaint = quantisp(
        "fit", "--cfa", "GRBG", "--data", picture, "--validation", picture, "--out", out
    )
    assert (code, complaint) == (0, "")
    assert "fitted to 1 pictures" in printed
    record = json.loads((tmp_path / "fitted.training.json").read_text())
    assert record["validation_psnr_db"] > 40
    code, printed, _ = quantisp("evaluate", "--model", out, "--images", picture, "--json")
    assert code == 0
    result = json.loads(printed)
    assert result["psnr_db"] == pytest.approx(record["validation_psnr_db"], abs=1e-6)
    assert result["cfa"] == str(parse_pattern("GRBG"))


def test_too_little_to_fit_to(quantisp: Run, tmp_path: Path):
    Image.new("RGB", (16, 16)).save(tmp_path / "p.png")
    out = tmp_path / "f.safetensors"
    arguments = ("fit", "--cfa", "bayer", "--data", tmp_path / "p.png", "--out")
    code, _, complaint = quantisp(*arguments, out)
    assert code == 1
    assert "give more or larger pictures" in complaint
    assert quantisp(*arguments, tmp_path / "f.bin")[0] == 2
    assert not out.exists()


def test_methods_are_evaluated_for_any_cfa(quantisp: Run, tmp_path: Path):
    noise = np.random.default_rng(1).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    arguments = ("evaluate", "--model", "bilinear", "--images", tmp_path / "p.png", "--json")
    code, printed, _ = quantisp(*arguments, "--pattern", "WRGB/GWBR/BGWG/RBGW")
    assert code == 0
    assert json.loads(printed)["cfa"] == "WRGB/GWBR/BGWG/RBGW"
    code, _, complaint = quantisp(*arguments)
    assert code == 2
    assert "pass --pattern" in complaint
