"""Run the layer of conv.v, or conv.c, on vectors that quantisp exported.

quantisp export lite-w8a8 --format vectors --crop 240,240,8 --out vectors/
python examples/rtl/run.py vectors/ --with iverilog conv2d_3
python examples/rtl/run.py vectors/ --with gcc

Without a name every convolution is run, on the crop and on its corner cases.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OVERFLOWS = {"wrap": 1, "clamp": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("nodes", nargs="*")
    parser.add_argument("--with", dest="tool", choices=("iverilog", "gcc"), default="iverilog")
    arguments = parser.parse_intermixed_args()
    manifest = json.loads((arguments.folder / "manifest.json").read_text())
    by_name = {node["name"]: node for node in manifest["nodes"]}
    convolutions = [n for n, node in by_name.items() if node["operation"]["kind"] == "Conv"]
    failures = 0
    for name in arguments.nodes or convolutions:
        node = by_name[name]
        sets = {"crop": (by_name[node["inputs"][0]]["crop"], node["crop"])}
        sets["corners"] = (node["corners"]["inputs"][0], node["corners"]["output"])
        for kind, (given, output) in sets.items():
            settings = parameters(manifest, node, given, output)
            files = file_names(arguments.folder.resolve(), node, given, output)
            run = simulate if arguments.tool == "iverilog" else compile_and_run
            said = run(settings, files)
            print(f"{name}, {kind}: {said}")
            failures += not said.startswith("PASS")
    return min(failures, 1)


def parameters(manifest: Any, node: Any, given: Any, output: Any) -> dict[str, int]:
    """Sizes and widths, as conv.v names them."""
    operation, codes, accumulator = node["operation"], node["codes"], manifest["accumulator"]
    (n, c, h, w), (_, o, oh, ow) = given["shape"], output["shape"]
    weight = node["parameters"]["weight"]
    found = {"N": n, "C": c, "H": h, "W": w, "O": o, "OH": oh, "OW": ow}
    found |= {"KH": weight["shape"][2], "KW": weight["shape"][3], "GROUPS": operation["groups"]}
    for letter, field in (("S", "stride"), ("P", "padding"), ("D", "dilation")):
        found[f"{letter}Y"], found[f"{letter}X"] = operation[field]
    found |= {"IN_BITS": given["bits"], "IN_SIGNED": int(given["signed"])}
    found |= {"WEIGHT_BITS": weight["bits"], "BIAS_BITS": node["parameters"]["bias"]["bits"]}
    found |= {"OUT_BITS": codes["bits"], "LOW": codes["low"], "HIGH": codes["high"]}
    found |= {"MULTIPLIER_BITS": node["parameters"]["multiplier"]["bits"]}
    found["HALF_EVEN"] = int(manifest["tie_rule"] == "half_even")
    if accumulator is not None:
        found["OVERFLOW"] = OVERFLOWS.get(accumulator["overflow"], 0)
        # Wider ones than 62 bits never overflow.
        found["ACC_BITS"] = min(accumulator["bits"], 62)
    return {"ACC_BITS": 48, "OVERFLOW": 0, **found}


def file_names(folder: Path, node: Any, given: Any, output: Any) -> dict[str, Path]:
    found = {"INPUT": folder / given["hex"], "OUTPUT": folder / output["hex"]}
    for kind in ("weight", "bias", "multiplier", "shift"):
        found[kind.upper()] = folder / node["parameters"][kind]["hex"]
    return found


def simulate(settings: dict[str, int], files: dict[str, Path]) -> str:
    """By Icarus Verilog."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "conv"
        words = [f"-Pconv_tb.{name}={value}" for name, value in settings.items()]
        words += [f'-Pconv_tb.{name}="{path}"' for name, path in files.items()]
        sources = [HERE / "conv.v", HERE / "conv_tb.v"]
        return said(["iverilog", "-g2005", "-Wall", *words, "-o", program, *sources], [program])


def compile_and_run(settings: dict[str, int], files: dict[str, Path]) -> str:
    """By gcc."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "conv"
        words = [f"-D{name}=({value})" for name, value in settings.items()]
        words += [f'-D{name}="{path}"' for name, path in files.items()]
        flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"]
        return said(["gcc", *flags, *words, "-o", program, HERE / "conv.c"], [program])


def said(build: list[Any], run: list[Any]) -> str:
    """What a program that is built first says last."""
    built = subprocess.run(  # noqa: S603
        build, capture_output=True, text=True, check=False
    )
    if built.returncode:
        sys.exit(built.stderr)
    ended = subprocess.run(  # noqa: S603
        run, capture_output=True, text=True, check=False
    )
    return ended.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
