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
from quantisp.quantization.export.vectors.corners import corner_cases
from quantisp.quantization.export.vectors.files import read_tensor, write_tensor
from quantisp.quantization.export.vectors.verification import verify_vectors
from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import ConvTranspose
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    IntegerNetwork,
    run_specification,
    worst_accumulators,
)


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


def corners_of(folder: Path, name: str):
    """The corner cases of a node: its manifest's entry, the inputs' codes, the output's."""
    document = json.loads((folder / MANIFEST).read_text())
    entry = next(entry for entry in document["nodes"] if entry["name"] == name)["corners"]
    inputs = [read_tensor(folder, given) for given in entry["inputs"]]
    return entry["cases"], inputs, read_tensor(folder, entry["output"])


def sums_of(network: IntegerNetwork, name: str, x: torch.Tensor) -> torch.Tensor:
    node, own = network.graph.node(name), network.integers[name]
    sums = apply_weight(node.operation, x.double(), own.weights.codes.double(), None)
    return (sums + own.weights.bias.double().view(-1, 1, 1)).long()


@pytest.mark.reference
def test_corner_cases_reach_the_worst_sums(tmp_path: Path):
    network = integers("rest")
    write_export("vectors", request(network, 1, 8, 12), tmp_path / "v")
    for worst in worst_accumulators(network):
        cases, (x,), _ = corners_of(tmp_path / "v", worst.node)
        given = network.integers[network.graph.node(worst.node).inputs[0]].codes
        assert given.low <= int(x.min()) <= int(x.max()) <= given.high
        transposed = isinstance(network.graph.node(worst.node).operation, ConvTranspose)
        # Of a transposed convolution with a stride, no output meets the whole kernel.
        if not transposed:
            sums = sums_of(network, worst.node, x)
            assert (int(sums.min()), int(sums.max())) == (worst.least, worst.greatest)
        assert sum("greatest sum" in case for case in cases) >= 3


@pytest.mark.reference
@pytest.mark.parametrize("tie_rule", ["half_up", "half_even"])
def test_corner_cases_have_ties_where_there_are_some(tmp_path: Path, tie_rule: str):
    network = integers("dephasenet", 8, 8, tie_rule, True)
    write_export("vectors", request(network, 1, 8, 8), tmp_path / "v")
    cases, (x,), y = corners_of(tmp_path / "v", "conv2d")
    rescale, sums = network.integers["conv2d"].rescale, sums_of(network, "conv2d", x)
    ties = [
        (k, int(case.split(":")[0].split()[-1]), int(case.split()[-1]))
        for k, case in enumerate(cases)
        if ": tie" in case
    ]
    assert ties
    for k, channel, total in ties:
        assert total in sums[k, channel].flatten().tolist()
        multiplier = int(rescale.multiplier[0].expand(y.shape[1])[channel])
        shift = int(rescale.shift.expand(y.shape[1])[channel])
        assert total * multiplier % (1 << shift) == 1 << (shift - 1)


def test_corner_cases_overflow_by_one_where_that_is_no_error(tmp_path: Path):
    for overflow in ("wrap", "error"):
        narrow = Accumulator(bits=16, overflow=overflow)
        network = integers("everything").with_accumulator(narrow)
        found = {
            case.split(", ")[0].split(": ")[-1]
            for node, *_ in network.layers()
            if (corners := corner_cases(network, node)) is not None
            for case in corners.cases
        }
        assert any(case.startswith("overflow by one") for case in found) == (overflow == "wrap")
    free = corner_cases(integers("everything"), network.graph.node("conv2d"))
    assert not any("accumulator" in case for case in free.cases)


def test_tables_are_enumerated(tmp_path: Path):
    network = integers("everything")
    node, own = next((n, o) for n, o in network if o.table is not None)
    (codes,) = corner_cases(network, node).inputs
    assert codes.numel() == len(own.table)
    executor = IntegerExecutor(network)
    assert executor.run_node(node.name, [codes], (1, 1)).flatten().tolist() == own.table.tolist()
