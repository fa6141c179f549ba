"""The layers in examples/rtl read exported vectors, and give the very same codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from export_kit import integers, request

from quantisp.quantization.export import write_export
from quantisp.quantization.integer import Accumulator

RUN = Path(__file__).parents[3] / "examples" / "rtl" / "run.py"
TOOLS = [
    pytest.param(tool, marks=pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}"))
    for tool in ("gcc", "iverilog")
]


def ran(folder: Path, tool: str, *nodes: str) -> tuple[int, list[str]]:
    words = [sys.executable, RUN, folder, "--with", tool, *nodes]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


@pytest.mark.reference
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("widths", "tie_rule", "accumulator"),
    [
        ((8, 8), "half_up", Accumulator(bits=16, overflow="wrap")),
        ((5, 6), "half_even", Accumulator(bits=12, overflow="clamp")),
        ((16, 16), "half_even", None),
    ],
)
def test_every_convolution_agrees(tmp_path: Path, tool: str, widths, tie_rule, accumulator):
    asked = request(integers("rest", *widths, tie_rule), 1, 8, 12, accumulator=accumulator)
    write_export("vectors", asked, tmp_path / "v")
    code, lines = ran(tmp_path / "v", tool, "conv2d", "conv2d_1", "conv2d_2")
    assert code == 0
    assert [line.split(":")[0] for line in lines] == [
        f"{node}, {kind}"
        for node in ("conv2d", "conv2d_1", "conv2d_2")
        for kind in ("crop", "corners")
    ]
    assert all("PASS" in line for line in lines)


@pytest.mark.parametrize("tool", TOOLS)
def test_one_code_that_differs_is_found(tmp_path: Path, tool: str):
    write_export("vectors", request(integers("chain"), 1, 5, 7), tmp_path / "v")
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    node = next(n for n in manifest["nodes"] if n["name"] == "conv2d")
    path = tmp_path / "v" / node["crop"]["hex"]
    lines = path.read_text().split()
    lines[17] = f"{int(lines[17], 16) ^ 1:02x}"
    path.write_text("\n".join(lines))
    code, lines = ran(tmp_path / "v", tool, "conv2d")
    assert code == 1
    assert lines[0] == "conv2d, crop: FAIL: 1 of 140 codes differ"
    assert lines[1].startswith("conv2d, corners: PASS")
