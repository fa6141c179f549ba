"""``quantisp export``: what it writes, and what it refuses in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.main import get_command

from quantisp.cli.main import app
from quantisp.quantization import Plan, quantize
from quantisp.quantization.export import WRITERS
from quantisp.quantization.integer import integer_network, save_integer_network

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one convolution."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1))
    inputs = [torch.rand(1, 1, 16, 16)]
    plan = Plan.uniform(weight_bits=8, activation_bits=8)
    folder = tmp_path_factory.mktemp("networks") / "One conv-w8a8"
    save_integer_network(folder, integer_network(quantize(network, plan, inputs)))
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    samples = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    Image.fromarray(samples).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_every_format_is_in_the_help():
    command = get_command(app).commands["export"]  # pyright: ignore[reportAttributeAccessIssue]
    (option,) = (p for p in command.params if p.name == "file_format")
    assert all(name in option.help for name in WRITERS)


def test_vectors_of_a_crop(quantisp: Run, folder: Path, photo: Path, tmp_path: Path):
    out = tmp_path / "vectors"
    options = ["--image", photo, "--pattern", "bayer", "--crop", "4,6,8,10", "--out", out]
    code, shown, complaint = quantisp("export", folder, "--format", "vectors", *options, "--json")
    assert (code, complaint) == (0, "")
    facts = json.loads(shown)
    assert facts["name"] == "one_conv_w8a8"
    assert facts["sample"] == {"source": "photo", "x": 4, "y": 6, "width": 8, "height": 10}
    manifest = json.loads((out / "manifest.json").read_text())
    codes = np.load(out / manifest["nodes"][0]["crop"]["npy"])
    pixels = np.asarray(Image.open(photo))[6:16, 4:12]
    assert (codes[0, 0, 0::2, 0::2] == np.round(pixels[0::2, 0::2, 0] / 255 * 65535)).all() or (
        codes.max() <= 1023
    )
    code, shown, _ = quantisp("export", folder, "--format", "vectors", *options)
    assert code == 0
    assert "none differs" in " ".join(shown.split())


def test_the_networks_own_input(quantisp: Run, folder: Path, tmp_path: Path):
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7))
    options = ["--image", tmp_path / "x.npy", "--crop", "0,0,7,5", "--out", tmp_path / "o"]
    code, shown, _ = quantisp("export", folder, "--format", "vectors", *options, "--json")
    assert code == 0
    assert json.loads(shown)["sample"]["source"] == "x.npy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "tflite"], "a format among"),
        (["--format", "vectors"], "give --pattern"),
        (["--format", "vectors", "--pattern", "bayer", "--crop", "1,2"], "expected X,Y,SIZE"),
        (["--format", "vectors", "--pattern", "bayer", "--crop", "1,2,8"], "the CFA's period"),
        (["--format", "vectors", "--pattern", "bayer", "--crop", "0,0,9999"], "a crop within the"),
        (["--format", "vectors", "--pattern", "bayer", "--crop", "0,0,0"], "a crop within the"),
        (["--format", "vectors", "--pattern", "bayer", "--image", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_get_one_line_and_nothing_is_written(
    quantisp: Run, folder: Path, tmp_path: Path, options: list[str], message: str
):
    code, shown, complaint = quantisp("export", folder, "--out", tmp_path / "out", *options)
    assert (code, shown) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["file", "nothing", "empty", "damaged", "future", "tensors"])
def test_what_is_no_integer_network_is_refused(
    quantisp: Run, folder: Path, tmp_path: Path, what: str
):
    given = tmp_path / "given"
    message = "expected an integer network"
    if what == "file":
        given = tmp_path / "w8.safetensors"
        given.write_bytes(b"x")
        message = "expected the folder of an integer network, found a file"
    elif what == "nothing":
        message = "expected the folder of an integer network, found nothing"
    elif what == "empty":
        given.mkdir()
        message = "cannot be read"
    else:
        given.mkdir()
        for path in folder.iterdir():
            (given / path.name).write_bytes(path.read_bytes())
        document = given / "network.json"
        text = document.read_text()
        if what == "damaged":
            document.write_text(text.replace('"nodes"', '"knots"'))
            message = "is damaged"
        elif what == "future":
            document.write_text(text.replace('"schema": 1', '"schema": 2'))
            message = "update quantisp"
        else:
            path = next(given.glob("*.safetensors"))
            path.write_bytes(path.read_bytes()[:-1])
            message = "is not what was written"
    before = sorted(tmp_path.rglob("*"))
    options = ["--format", "vectors", "--pattern", "bayer", "--out", tmp_path / "out"]
    code, shown, complaint = quantisp("export", given, *options)
    assert (code, shown) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
