"""The program in C gives every node's codes to the last bit, and breaks none of C's rules."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_kit import NETWORKS, integers, request

from quantisp.errors import ModelError, RunError, SettingError
from quantisp.quantization.export import ExportRequest, Sample, write_export
from quantisp.quantization.export.c.memory import assign_slots
from quantisp.quantization.export.c.program import Program
from quantisp.quantization.export.c.sizes import size_in_c
from quantisp.quantization.export.c.verification import find_compiler, verify_program
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    IntegerNetwork,
    run_specification,
    worst_accumulators,
)

needs_gcc = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs gcc to compile what is exported"
)
STRICT = ["gcc", "-Werror"]
SIZES = {
    "everything": (1, 8, 12),
    "dephasenet": (1, 16, 24),
    "chain": (1, 5, 7),
    "rest": (1, 10, 14),
}


def exported(folder: Path, asked: ExportRequest) -> Program:
    """Written without running it."""
    write_export("c", asked, folder)
    return Program(asked.network, asked.name)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)


def sample(x: torch.Tensor) -> Sample:
    return Sample(x=x, source="a test")


def codes_of(network: IntegerNetwork, asked: ExportRequest):
    names = [node.name for node in network.graph.nodes]
    return IntegerExecutor(network).run(asked.sample.x, names)


def test_small_networks_have_every_operation():
    from quantisp.quantization.integer.operations import INPUTS

    kinds = {type(node.operation) for n in NETWORKS for node in integers(n).graph.nodes}
    assert kinds == set(INPUTS)


@needs_gcc
@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "widths", "tie_rule", "power_of_two"),
    [
        ("rest", (8, 8), "half_up", False),
        ("everything", (5, 4), "half_even", True),
        ("everything", (10, 12), "half_up", False),
        ("rest", (16, 16), "half_even", False),
        ("dephasenet", (8, 8), "half_even", True),
    ],
)
def test_every_node_is_equal_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name, widths, tie_rule, power_of_two
):
    network = integers(name, *widths, tie_rule, power_of_two)
    asked = request(network, *SIZES[name])
    monkeypatch.setenv("CC", " ".join(STRICT))
    report = write_export("c", asked, tmp_path / "out")
    assert "all" in report.verified
    assert "with its sanitizers and with -O3 -march=native" in report.verified
    # The executor is not the only judge.
    (output,) = run_specification(network, asked.sample.x).values()
    found = np.fromfile(tmp_path / "out" / "sample.output", dtype="<u2")
    shape = np.array(output.shape)[[0, 2, 3, 1]]
    wanted = np.array(output.values).reshape(output.shape).transpose(0, 2, 3, 1)
    assert np.array_equal(found.astype(np.int16).reshape(shape), wanted.astype(np.int16))


@needs_gcc
@pytest.mark.parametrize("flags", ["-DNARROW_WEIGHTS", "-O2 -mno-avx512f"])
def test_other_kernels_change_nothing(tmp_path: Path, no_compiler, monkeypatch, flags):
    network = integers("dephasenet")
    asked = request(network, *SIZES["dephasenet"], unverified=True)
    program = exported(tmp_path / "out", asked)
    monkeypatch.undo()
    codes = codes_of(network, asked)
    compiler = [*STRICT, *flags.split()]
    assert "nodes equal" in verify_program(tmp_path / "out", program, codes, compiler)


@needs_gcc
@pytest.mark.parametrize("overflow", ["wrap", "clamp"])
def test_accumulators_overflow_as_they_should(tmp_path: Path, monkeypatch, overflow):
    network = integers("rest")
    widest = max(found.bits for found in worst_accumulators(network))
    narrow = Accumulator(bits=widest - 5, overflow=overflow)
    asked = request(network, *SIZES["rest"], accumulator=narrow)
    free, kept = (codes_of(n, asked)[network.graph.output] for n in (network, asked.network))
    assert not torch.equal(free, kept)
    monkeypatch.setenv("CC", " ".join(STRICT))
    write_export("c", asked, tmp_path / "out")


@needs_gcc
def test_a_sum_that_does_not_fit_ends_the_program(tmp_path: Path):
    network, executor = integers("chain"), IntegerExecutor(integers("chain"))
    black, white = torch.zeros(1, 1, 5, 7), torch.ones(1, 1, 5, 7)
    dark, bright = (max(executor.observe([x]).values()) for x in (black, white))
    assert dark < bright
    error = Accumulator(bits=bright - 1, overflow="error")
    asked = replace(request(network, 1, 5, 7, accumulator=error), sample=sample(black))
    with pytest.raises(RunError, match="sums of"):
        write_export("c", replace(asked, sample=sample(white)), tmp_path / "white")
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "out"
    write_export("c", asked, folder)
    built = ["gcc", "-std=c99", "-o", tmp_path / "run", folder / "main.c", folder / "small.c"]
    subprocess.run(built, check=True)
    np.full(35, 1023, "<u2").tofile(tmp_path / "white")
    words = [tmp_path / "run", "5", "7", tmp_path / "white", tmp_path / "o"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, (tmp_path / "o").exists()) == (1, False)
    assert "does not fit its accumulator" in ended.stderr


@needs_gcc
def test_what_differs_is_found_and_nothing_is_kept(tmp_path: Path, monkeypatch):
    network = integers("chain")
    asked = request(network, 1, 5, 7)
    program = exported(tmp_path / "out", asked)
    codes = codes_of(network, asked)
    verify_program(tmp_path / "out", program, codes, STRICT)
    weights = tmp_path / "out" / "small_weights.h"
    text = weights.read_text()
    first = text.index("{\n", text.index("bias_2[")) + 2
    weights.write_text(text[:first] + "1" + text[first:])
    with pytest.raises(RunError, match="the same codes in C"):
        verify_program(tmp_path / "out", program, codes, STRICT)
    monkeypatch.setattr(
        "quantisp.quantization.export.c.IntegerExecutor.run",
        lambda self, x, names: {name: value ^ 1 for name, value in codes.items()},
    )
    with pytest.raises(RunError, match="nothing is kept"):
        write_export("c", asked, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@needs_gcc
def test_the_program_refuses_what_it_cannot_do(tmp_path: Path):
    write_export("c", request(integers("dephasenet"), 1, 8, 8), tmp_path / "out")
    out = tmp_path / "out"
    binary = tmp_path / "run"
    sources = [out / "main.c", out / "small.c"]
    flags = ["-std=c99", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, "-o", binary, *sources], check=True)
    sample, result = out / "sample.input", tmp_path / "result"
    for words, message in (
        (["8", "8", sample], "usage"),
        (["8", "10", sample, result], "multiples of 4 px"),
        (["0", "8", sample, result], "multiples of 4 px"),
        (["99999999999", "8", sample, result], "multiples of 4 px"),
        (["16", "8", sample, result], "not exactly so many codes"),
        (["4", "8", sample, result], "not exactly so many codes"),
        (["8", "8", tmp_path / "nowhere", result], "not exactly so many codes"),
        (["8", "8", sample, tmp_path / "no" / "where"], "cannot write"),
    ):
        ended = subprocess.run(
            [binary, *words], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert ended.returncode == 1
        assert message in ended.stderr
        assert not result.exists()


@needs_gcc
def test_the_makefile_builds_and_checks(tmp_path: Path):
    write_export("c", request(integers("chain"), 1, 5, 7), tmp_path / "out")
    if shutil.which("make") is None:
        pytest.skip("needs make")
    made = subprocess.run(
        ["make", "-s", "all", "check", "CFLAGS=-O2 -Werror"],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "out" / "libsmall.a").is_file()


@pytest.mark.unit
def test_without_a_compiler_it_has_to_be_asked_for(tmp_path: Path, no_compiler):
    network = integers("chain")
    with pytest.raises(SettingError, match=r"a C compiler .* --unverified"):
        write_export("c", request(network, 1, 5, 7), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    report = write_export("c", request(network, 1, 5, 7, unverified=True), tmp_path / "out")
    assert report.verified.startswith("not verified")
    assert "not verified" in (tmp_path / "out" / "small.h").read_text()


@pytest.mark.unit
def test_a_compiler_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "no-such-cc -O2")
    with pytest.raises(SettingError, match="nothing called 'no-such-cc'"):
        find_compiler()


@pytest.mark.unit
def test_slots_are_never_shared_by_what_is_needed_at_once():
    for name in NETWORKS:
        graph = integers(name).graph
        slots = assign_slots(graph, {node.name: 1 + k % 3 for k, node in enumerate(graph.nodes)})
        order = {node.name: k for k, node in enumerate(graph.nodes)}
        ends = {node.name: order[node.name] for node in graph.nodes}
        for node in graph.nodes:
            for source in node.inputs:
                ends[source] = max(ends[source], order[node.name])
        ends[graph.output] = len(order)
        for a in order:
            for b in order:
                if order[a] < order[b] <= ends[a]:
                    assert slots[a] != slots[b], (name, a, b)
        assert max(slots.values()) < len(order) - 1 or len(order) < 4


@pytest.mark.unit
@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        (["//", "h", 2], "floored(height, 2)"),
        (["+", ["*", ["/", 1, 2], "h"], 1], "(((height * 1) * 1) + (INT64_C(1) * 2))"),
        (["max", "h", 3], "greater"),
        (["%", "w", 3], "(width - 3 * floored(width, 3))"),
    ],
)
def test_sizes_as_expressions(tree, wanted):
    assert wanted.split("(")[0] in size_in_c(tree)


@pytest.mark.unit
def test_a_size_that_divides_by_a_size_is_refused():
    with pytest.raises(ModelError, match="divided by whole numbers"):
        size_in_c(["//", 96, "h"])
