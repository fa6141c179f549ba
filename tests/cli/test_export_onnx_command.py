"""``quantisp export --format onnx`` and ``qonnx``: a file, a report, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from quantisp.quantization import Plan, quantize
from quantisp.quantization.integer import (
    Accumulator,
    integer_network,
    load_integer_network,
    save_integer_network,
)

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a shuffle: pictures of even sizes."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(4, 12, 3, padding=1), nn.PixelShuffle(2)
    )
    plan = Plan.uniform(weight_bits=6, activation_bits=8)
    folder = tmp_path_factory.mktemp("networks") / "net"
    quantized = quantize(network, plan, [torch.rand(1, 1, 16, 16)])
    save_integer_network(folder, integer_network(quantized))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).random((48, 56), np.float32))
    return path


@pytest.mark.parametrize("file_format", ["onnx", "qonnx"])
def test_a_file_and_what_is_said_of_it(
    quantisp: Run, folder: Path, picture: Path, tmp_path: Path, file_format: str
):
    out = tmp_path / "out"
    options = ["--format", file_format, "--image", picture, "--out", out, "--json"]
    code, shown, complaint = quantisp("export", folder, *options)
    assert (code, complaint) == (0, "")
    facts = json.loads(shown)
    assert facts["verified"].startswith("each node, given equal inputs, run by")
    assert facts["nodes_compared"] == 4
    assert facts["largest_difference"] <= 1
    assert facts["input_shape"] == "n x 1 x height x width"
    assert facts["verified_on"] == "the sample and noise of 32x32 and 42x40 px"
    assert json.loads((out / "export.json").read_text())["facts"]["file"] == "net.onnx"
    assert (out / "net.onnx").stat().st_size == facts["file_bytes"]


def test_a_file_for_one_size(quantisp: Run, folder: Path, picture: Path, tmp_path: Path):
    options = ["--format", "onnx", "--image", picture, "--out", tmp_path / "out", "--json"]
    code, shown, _ = quantisp("export", folder, *options, "--size", "40,24")
    assert code == 0
    facts = json.loads(shown)
    assert facts["input_shape"] == "1 x 1 x 24 x 40"
    assert facts["verified_on"] == "the sample and noise of 40x24 px"
    model = onnx.load(tmp_path / "out" / "net.onnx")
    shape = model.graph.output[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 3, 24, 40]
    # Larger than the picture: noise does.
    code, shown, _ = quantisp("export", folder, *options, "--size", "64,80")
    assert json.loads(shown)["verified_on"] == "noise of 64x80 px"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx", "--size", "32"], "expected WIDTH,HEIGHT"),
        (["--format", "onnx", "--size", "0,32"], "expected WIDTH,HEIGHT"),
        (["--format", "onnx", "--size", "32,33"], "multiples of 2 px"),
        (["--format", "vectors", "--size", "32,32"], "--size with a format among onnx, qonnx"),
    ],
)
def test_mistakes_get_one_line_and_nothing_is_written(
    quantisp: Run, folder: Path, picture: Path, tmp_path: Path, options: list[str], message: str
):
    given = ["--out", tmp_path / "out", "--image", picture, *options]
    code, shown, complaint = quantisp("export", folder, *given)
    assert (code, shown) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert list(tmp_path.iterdir()) == [picture]


@pytest.mark.parametrize("file_format", ["onnx", "qonnx"])
def test_accumulators_that_wrap_are_refused(
    quantisp: Run, folder: Path, picture: Path, tmp_path: Path, file_format: str
):
    wrapping = Accumulator(bits=8, overflow="wrap")
    network = replace(load_integer_network(folder), accumulator=wrapping)
    save_integer_network(tmp_path / "wraps", network)
    given = ["--format", file_format, "--image", picture, "--out", tmp_path / "out"]
    code, shown, complaint = quantisp("export", tmp_path / "wraps", *given)
    assert (code, shown) == (2, "")
    assert "quantize with --overflow clamp" in complaint
    assert not (tmp_path / "out").exists()


def test_onnx_is_imported_when_it_is_needed():
    code = (
        "import sys, quantisp.quantization.export.onnx as e; "
        "assert not {'onnx', 'onnxruntime', 'qonnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
