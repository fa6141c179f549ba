"""Vectors are written whole, are what the specification gives, and nothing else is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from export_kit import integers, request

from quantisp.errors import RunError
from quantisp.quantization.export import MARKER, write_export
from quantisp.quantization.export.vectors import MANIFEST
from quantisp.quantization.export.vectors.files import read_tensor, write_tensor
from quantisp.quantization.export.vectors.verification import verify_vectors
from quantisp.quantization.integer import run_specification


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.mark.unit
@pytest.mark.parametrize(
    ("bits", "signed", "values", "lines"),
    [
        (8, True, [-128, -1, 0, 127], ["80", "ff", "00", "7f"]),
        (8, False, [0, 255], ["00", "ff"]),
        (5, True, [-16, 15, -1], ["10", "0f", "1f"]),
        (12, False, [4095, 1], ["fff", "001"]),
        (48, True, [-(1 << 47), (1 << 47) - 1], ["800000000000", "7fffffffffff"]),
        (64, True, [-(1 << 63), -1], ["8000000000000000", "ffffffffffffffff"]),
    ],
)
def test_hexadecimal_is_twos_complement(
    tmp_path: Path, bits: int, signed: bool, values: list[int], lines: list[str]
):
    entry = write_tensor(tmp_path, "a/x", torch.tensor(values), bits=bits, signed=signed)
    assert (tmp_path / "a/x.hex").read_text().split() == lines
    assert np.load(tmp_path / "a/x.npy").tolist() == values
    assert read_tensor(tmp_path, entry).tolist() == values


@pytest.mark.unit
def test_values_beyond_their_width_are_not_written(tmp_path: Path):
    with pytest.raises(RunError, match="in 4 bits, found 0 to 16"):
        write_tensor(tmp_path, "x", torch.tensor([0, 16]), bits=4, signed=False)


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "widths", "size"),
    [("everything", (5, 6), (1, 8, 12)), ("dephasenet", (8, 8), (1, 8, 8))],
)
def test_every_tensor_is_what_the_specification_gives(
    tmp_path: Path, name: str, widths: tuple[int, int], size: tuple[int, ...]
):
    network = integers(name, *widths)
    asked = request(network, *size)
    report = write_export("vectors", asked, tmp_path / "out")
    document = json.loads((tmp_path / "out" / MANIFEST).read_text())
    names = [node.name for node in network.graph.nodes]
    wanted = run_specification(network, asked.sample.x, names)
    assert [entry["name"] for entry in document["nodes"]] == names
    for entry in document["nodes"]:
        array = np.load(tmp_path / "out" / entry["crop"]["npy"])
        assert array.shape == wanted[entry["name"]].shape
        assert array.ravel().tolist() == wanted[entry["name"]].values
        own = network.integers[entry["name"]]
        if own.weights is not None:
            weight = np.load(tmp_path / "out" / entry["parameters"]["weight"]["npy"])
            assert torch.equal(torch.from_numpy(weight).int(), own.weights.codes)
    assert "none differs" in report.verified
    assert json.loads((tmp_path / "out" / MARKER).read_text())["verified"] == report.verified


@pytest.mark.parametrize("what", ["hex", "npy", "parameters", "document"])
def test_what_differs_is_found(tmp_path: Path, what: str):
    network = integers("chain")
    write_export("vectors", request(network, 1, 5, 7), tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    document = json.loads(manifest.read_text())
    last = document["nodes"][-1]
    if what in ("hex", "npy"):
        path = tmp_path / "out" / last["crop"][what]
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    elif what == "parameters":
        weights = read_tensor(tmp_path / "out", last["parameters"]["weight"])
        other = write_tensor(tmp_path / "out", "other", -weights, bits=8, signed=True)
        last["parameters"]["weight"] = other
    else:
        output = read_tensor(tmp_path / "out", last["crop"])
        output[0, 0, 0, 0] ^= 1
        last["crop"] = write_tensor(tmp_path / "out", "other", output, bits=8, signed=False)
    manifest.write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"as it was written|as they are computed"):
        verify_vectors(manifest, network, quiet)


def test_the_specification_alone_finds_a_difference_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    network = integers("chain")
    monkeypatch.setattr(
        "quantisp.quantization.export.vectors.verification._compare", lambda *arguments: None
    )
    write_export("vectors", request(network, 1, 5, 7), tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    document = json.loads(manifest.read_text())
    last = document["nodes"][-1]
    output = read_tensor(tmp_path / "out", last["crop"])
    output[0, 0, 4, 6] ^= 1
    last["crop"] = write_tensor(tmp_path / "out", "other", output, bits=8, signed=False)
    manifest.write_text(json.dumps(document))
    with pytest.raises(RunError, match="by the specification, found"):
        verify_vectors(manifest, network, quiet)
