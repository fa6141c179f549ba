"""A program in C, compiled, run on a crop, and compared with the executor on every node."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from quantisp.errors import RunError, SettingError
from quantisp.quantization.export.c.instances import ctype
from quantisp.quantization.export.c.program import Program

__all__ = ["find_compiler", "verify_program"]

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILE_S, RUN_S = 900, 900


def find_compiler() -> list[str] | None:
    """The words of ``$CC``, or a C compiler that is there; None if there is none.

    Raises:
        SettingError: ``$CC`` names none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise SettingError(
                f"expected a C compiler as $CC, found nothing called {named[0]!r}: correct CC, or "
                "unset it"
            )
        return named
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    return None if found is None else [found]


def verify_program(
    folder: Path, program: Program, codes: Mapping[str, Int[Tensor, ...]], compiler: list[str]
) -> str:
    """Compile what is in a folder, run it on its sample, and compare every node's result.

    Args:
        folder: of the sources, and of ``sample.input`` and ``sample.output``.
        program: that they are of.
        codes: of each node for the sample.
        compiler: its words.

    Returns:
        What was compared, in words.
    Raises:
        RunError: it cannot be compiled, fails, or a result differs.
    """
    network = program.network
    height, width = codes[network.graph.nodes[0].name].shape[2:]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        found = _ways(compiler, folder, program.name, work / "program")
        ways = [_compared(work, folder, program, codes, how) for how in found]
    return (
        f"compiled by {Path(compiler[0]).name} {' and '.join(ways)}, and run on {width}x{height} "
        f"px: all {len(codes)} nodes equal to the last bit"
    )


def _ways(compiler: list[str], folder: Path, name: str, binary: Path) -> Iterator[str]:
    """Compile in one way after the other; what the first cannot do here is left out."""
    sources = [str(folder / "main.c"), str(folder / f"{name}.c")]
    command = [*compiler, *FLAGS, "-o", str(binary), *sources]
    if _compiles([*command, *SANITIZERS]) and _starts(binary):
        yield "with its sanitizers"
    # Optimised, as it will be used: compilers have errors of their own.
    if _compiles([*command, "-O3", "-march=native"]):
        yield "with -O3 -march=native"
        return
    _run([*command, "-O3"], COMPILE_S, "compile")
    yield "with -O3"


def _compiles(command: list[str]) -> bool:
    with contextlib.suppress(RunError):
        _run(command, COMPILE_S, "compile")
        return True
    return False


def _compared(
    work: Path, folder: Path, program: Program, codes: Mapping[str, Int[Tensor, ...]], how: str
) -> str:
    """Run the program and compare every node; returns ``how``."""
    network = program.network
    height, width = codes[network.graph.nodes[0].name].shape[2:]
    nodes, output = work / "nodes", work / "output"
    nodes.mkdir(exist_ok=True)
    files = [str(folder / "sample.input"), str(output), str(nodes)]
    _run([str(work / "program"), str(height), str(width), *files], RUN_S, "run")
    for node, own in network:
        kind = np.dtype(ctype(own.codes).removesuffix("_t"))
        found = np.fromfile(nodes / program.labels[node.name], dtype=kind)
        wanted = codes[node.name].permute(0, 2, 3, 1).flatten()
        _compare(f"{node.name}, {how}", torch.from_numpy(found.astype(np.int32)), wanted)
    if output.read_bytes() != (folder / "sample.output").read_bytes():
        raise RunError("expected the same output in C, found another: nothing is kept")
    return how


def _compare(name: str, found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape:
        raise RunError(f"expected {wanted.numel()} codes of {name} in C, found {found.numel()}")
    differing = int((found != wanted).sum())
    if differing:
        raise RunError(
            f"expected the same codes in C, {differing} of {wanted.numel()} of {name} differ: "
            "nothing is kept; try another compiler as CC"
        )


def _starts(binary: Path) -> bool:
    """Whether a program with sanitizers runs on this machine: without words it ends with 1."""
    try:
        ended = subprocess.run(  # noqa: S603
            [binary], capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"usage" in ended.stderr


def _run(command: list[str], seconds: int, doing: str) -> None:
    try:
        ended = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=seconds, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"cannot {doing} the C program: {str(error)[:200]}") from error
    if ended.returncode:
        lines = (ended.stderr.strip() or f"it ended with {ended.returncode}").splitlines()
        line = next((line for line in lines if "error" in line), lines[0])
        raise RunError(f"cannot {doing} the C program: {line[:300]}")
