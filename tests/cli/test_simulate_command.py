"""``quantisp simulate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantisp.cfa import CFAPattern
from quantisp.cfa.raw import read_raw
from quantisp.cfa.raw_image import linear

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]
BAYER_FLAGS = ("--width", 16, "--height", 12, "--packing", "plain16", "--raw-bits", 12)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    samples = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(samples).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def bayer(tmp_path: Path) -> Path:
    """Twelve bits, no header: cells of one colour."""
    rgb = np.random.default_rng(1).integers(300, 3000, (6, 8, 3), dtype=np.uint16)
    codes = np.zeros((12, 16), dtype="<u2")
    for (y, x), colour in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
        codes[y::2, x::2] = rgb[:, :, colour]
    codes.tofile(tmp_path / "scene.raw")
    return tmp_path / "scene.raw"


def test_a_picture_becomes_a_capture(quantisp: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("simulate", photo, "--white-balance-gains", "2,1,1.6", "--iso", 800, "--out", out)
    code, shown, _ = quantisp(*arguments, "--json")
    assert code == 0
    said = json.loads(shown)
    assert (said["cfa"], said["bits"], said["noise"]) == ("rgbw-kodak", 10, [0.001764, 1.2e-05])
    assert said["files"][0]["neutral"] == [0.5, 1.0, 0.625]
    raw = read_raw(out / "photo.dng")
    assert (raw.pattern.name, raw.bits, raw.black[0]) == ("rgbw-kodak", 10, 64.0)
    assert raw.as_shot_neutral == (0.5, 1.0, 0.625)
    assert raw.noise_profile == ((0.001764, 1.2e-05),)
    assert raw.metadata["iso"] == "800"
    first = (out / "photo.dng").read_bytes()
    assert quantisp(*arguments)[0] == 0
    assert (out / "photo.dng").read_bytes() == first
    assert quantisp(*arguments, "--seed", 1)[0] == 0
    assert (out / "photo.dng").read_bytes() != first


@pytest.mark.parametrize("form", ["npy", "png"])
def test_other_formats_say_the_same(quantisp: Run, photo: Path, tmp_path: Path, form: str) -> None:
    for chosen in ("dng", form):
        options = ("--cfa", "GBRG", "--bits", 12, "--format", chosen)
        assert quantisp("simulate", photo, *options, "--out", tmp_path / "out")[0] == 0
    dng, other = (read_raw(tmp_path / "out" / f"photo.{kind}") for kind in ("dng", form))
    np.testing.assert_array_equal(dng.codes, other.codes)
    assert (dng.pattern, dng.black, dng.metadata) == (other.pattern, other.black, other.metadata)


def test_a_bayer_capture_becomes_another(quantisp: Run, bayer: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = (*BAYER_FLAGS, "--pattern", "RGGB", "--raw-black", 200)
    options = (*flags, "--white-balance-gains", "2,1,1.6", "--bits", 14, "--out", out)
    code, shown, _ = quantisp("simulate", bayer, *options)
    assert code == 0
    assert "scene.dng" in shown
    found = read_raw(out / "scene.dng")
    assert found.size == (6, 8)
    # Where the RGBW-K tile has R, G or B, the sample is the capture's own.
    codes = np.fromfile(bayer, dtype="<u2").reshape(12, 16).astype(float)
    offsets = {"R": (0, 0), "G": (0, 1), "B": (1, 1)}
    for y, x in np.ndindex(6, 8):
        letter = found.pattern.letter(y, x)
        if letter != "W":
            dy, dx = offsets[letter]
            own = (codes[2 * y + dy, 2 * x + dx] - 200) / (4095 - 200)
            assert linear(found)[y, x] == pytest.approx(own, abs=1e-4)


def test_what_a_capture_says_of_its_white_balance_is_kept(
    quantisp: Run, bayer: Path, tmp_path: Path
) -> None:
    flags = (*BAYER_FLAGS, "--pattern", "RGGB")
    grey = quantisp("simulate", bayer, *flags, "--out", tmp_path / "a", "--cfa", "bayer", "--json")
    assert json.loads(grey[1])["files"][0]["neutral_from"] == "grey world"
    shot = quantisp(
        "simulate",
        tmp_path / "a" / "scene.dng",
        "--out",
        tmp_path / "b",
        "--cfa",
        "bayer",
        "--json",
    )
    first = json.loads(shot[1])["files"][0]
    assert first["neutral_from"] == "as shot"
    neutral = json.loads(grey[1])["files"][0]["neutral"]
    assert first["neutral"] == pytest.approx(neutral, rel=1e-8)


def test_white_saturates_first(quantisp: Run, photo: Path, tmp_path: Path) -> None:
    options = ("--white-sensitivity", 3, "--out", tmp_path / "out", "--json")
    shares = json.loads(quantisp("simulate", photo, *options)[1])["files"][0]["saturated"]
    assert shares["W"] > 0.3 > shares["G"]
    assert read_raw(tmp_path / "out" / "photo.dng").pattern.response("W") == pytest.approx((1,) * 3)


def test_a_wrong_phase_is_warned_of(
    quantisp: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    codes = np.tile(np.array([[3000, 800], [800, 200]], dtype="<u2"), (64, 64))
    codes.tofile(tmp_path / "a.raw")
    flags = ("--width", 128, "--height", 128, "--packing", "plain16", "--raw-bits", 12)
    for pattern, warned in (("RGGB", False), ("GRBG", True)):
        caplog.clear()
        options = (*flags, "--pattern", pattern, "--out", tmp_path / pattern)
        assert quantisp("simulate", tmp_path / "a.raw", *options)[0] == 0
        assert ("its CFA looks like" in caplog.text) is warned


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "no such CFA": (("--cfa", "rgbw-codac"), "no CFA is called"),
    "bits": (("--bits", 17), "2 to 16 bits"),
    "black": (("--black", 5000), "black level"),
    "ISO": (("--iso", 0), "ISO from"),
    "noise of no camera": (("--noise", "brownie"), "--noise like S,O"),
    "noise without ISO": (("--noise", "nexus-6"), "give --iso"),
    "noise twice": (("--noise", "0.1,0.1", "--iso", 100), "leave out one"),
    "gains": (("--white-balance-gains", "1,2"), "like R,G,B"),
    "gains of zero": (("--white-balance-gains", "0,1,1"), "white-balance gains from"),
    "white of Bayer": (("--cfa", "bayer", "--white-sensitivity", 2), "a CFA with W"),
    "format": (("--format", "jpg"), "a format among"),
    "packing": (("--packing", "raw14"), "a packing among"),
    "curve": (("--curve", "log"), "a curve among"),
    "seed": (("--seed", -1), "a seed from"),
    "raw black": (("--raw-black", "x"), "black level like"),
    "a header of a picture": (("--width", 4), "to say its own size"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_options_end_in_one_line(quantisp: Run, photo: Path, tmp_path: Path, kind: str) -> None:
    options, message = BAD[kind]
    code, shown, complaint = quantisp("simulate", photo, *options, "--out", tmp_path / "out")
    assert (code, shown) == (2, "")
    assert complaint.count("\n") == 1
    assert message in complaint
    assert not list((tmp_path / "out").glob("*"))


def test_a_picture_is_not_written_over(quantisp: Run, photo: Path, tmp_path: Path) -> None:
    code, _, complaint = quantisp("simulate", photo, "--format", "png", "--out", tmp_path)
    assert code == 2
    assert "another folder" in complaint


def test_a_picture_that_is_too_small_is_named(quantisp: Run, tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "tiny.png")
    code, _, complaint = quantisp("simulate", tmp_path / "tiny.png", "--out", tmp_path / "out")
    assert code == 2
    assert "tiny.png: expected a picture of at least one tile" in complaint


def test_a_raw_file_has_no_curve(quantisp: Run, bayer: Path, tmp_path: Path) -> None:
    flags = (*BAYER_FLAGS, "--pattern", "RGGB", "--curve", "linear", "--out", tmp_path / "out")
    code, _, complaint = quantisp("simulate", bayer, *flags)
    assert code == 2
    assert "--curve for RGB pictures alone" in complaint


@pytest.mark.parametrize(
    ("name", "pattern", "options"),
    [
        (
            "ColorCheckerRAW_1920x1080_12bit_BGGR.raw",
            "BGGR",
            ("--width", 1920, "--height", 1080, "--packing", "plain16", "--raw-bits", 12),
        ),
        (
            "DSC_1339_768x512_gbrg.raw",
            "GBRG",
            ("--width", 768, "--height", 512, "--packing", "plain16", "--raw-bits", 14),
        ),
    ],
)
def test_real_captures(
    quantisp: Run,
    shared_data: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    pattern: str,
    options: tuple[object, ...],
) -> None:
    source = shared_data / "raw" / name
    code, _, _ = quantisp("simulate", source, *options, "--pattern", pattern, "--out", tmp_path)
    assert code == 0
    assert "looks like" not in caplog.text
    raw = read_raw(tmp_path / f"{source.stem}.dng")
    assert raw.pattern == CFAPattern.named("rgbw-kodak")
    assert raw.bits == 10


@pytest.mark.reference
def test_another_developer_gets_the_picture_back(quantisp: Run, tmp_path: Path) -> None:
    """Black, white balance, matrix and curve, by LibRaw alone: what was simulated is undone."""
    rawpy: Any = pytest.importorskip("rawpy")
    y, x = np.mgrid[0:96, 0:128] / 128
    scene = np.stack([0.2 + 0.6 * x, 0.7 - 0.5 * y, 0.3 + 0.3 * np.sin(4 * x + 2 * y)], axis=2)
    photo = (scene * 255 + 0.5).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    options = ("--cfa", "bayer", "--bits", 14, "--white-balance-gains", "2,1,1.6")
    assert quantisp("simulate", tmp_path / "photo.png", *options, "--out", tmp_path)[0] == 0
    with rawpy.imread(str(tmp_path / "photo.dng")) as capture:
        developed = capture.postprocess(
            use_camera_wb=True,
            no_auto_bright=True,
            gamma=(2.4, 12.92),
            output_color=rawpy.ColorSpace.sRGB,
        )
    error = np.abs(developed.astype(int) - photo)[4:-4, 4:-4]
    assert error.mean() < 1.0
    assert error.max() < 6
