"""An integer network as a C99 program and library: integers only, no allocation, no dependency.

::

    NAME.h            the functions: how much memory, what size, run, with a hook for each node
    NAME.c            the network
    NAME_kernels.h    its operations, for the types that it has
    NAME_weights.h    its numbers
    main.c, Makefile  a program from file to file
    sample.input, sample.output
                      of the run that verified it; `make check` runs it again
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from quantisp.errors import SettingError
from quantisp.files import write_atomically
from quantisp.quantization.export.c.program import Program, program_files
from quantisp.quantization.export.c.verification import find_compiler, verify_program
from quantisp.quantization.export.request import ExportReport, ExportRequest
from quantisp.quantization.integer import IntegerExecutor

__all__ = ["write_c"]


def write_c(request: ExportRequest) -> ExportReport:
    """Write a program in C, compile it, run it, and compare every node.

    Raises:
        SettingError: there is no compiler to verify it with, and ``unverified`` was not asked for.
        ModelError: a size that C cannot say.
        RunError: it cannot be compiled here, or gives something else.
    """
    compiler = find_compiler()
    if compiler is None and not request.unverified:
        raise SettingError(
            "expected a C compiler to verify the program with, found neither $CC nor cc, gcc or "
            "clang: install one, or write it as it is with --unverified"
        )
    request.on_progress("writing C", 0, 2)
    network, folder = request.network, request.folder
    program = Program(network, request.name)
    names = [node.name for node in network.graph.nodes]
    codes = IntegerExecutor(network).run(request.sample.x, names)
    for file, node in (("sample.input", names[0]), ("sample.output", network.graph.output)):
        write_atomically(folder / file, _as_words(codes[node]))
    height, width = request.sample.x.shape[2:]
    verified = "not verified: there was no C compiler"
    for name, text in program_files(program, f"It was {verified}.", (height, width)).items():
        write_atomically(folder / name, text.encode())
    request.on_progress("compiling and running", 1, 2)
    if compiler is not None:
        verified = verify_program(folder, program, codes, compiler)
        header = f"{request.name}.h"
        text = program_files(program, f"Verified: {verified}.")[header]
        write_atomically(folder / header, text.encode())
    request.on_progress("compiling and running", 2, 2)
    return ExportReport(
        verified=verified,
        facts={
            "sizes": program.sizes,
            "work_bytes_per_px": round(program.work_per_px, 2),
            "nodes": len(program.places),
            "layers": len(program.layers),
        },
    )


def _as_words(codes: Int[Tensor, "n c h w"]) -> bytes:
    """Codes of 16 bits, little endian, channels last."""
    values = codes.permute(0, 2, 3, 1).contiguous().numpy() & 0xFFFF
    return values.astype("<u2").tobytes()
