"""Test vectors: every node's inputs, parameters and outputs as files, and corner cases.

::

    manifest.json           every node, its files, their shapes, widths and digests
    crop/NNN-NODE.npy .hex  its output for the crop; a node's inputs are outputs of others
    parameters/NNN-NODE.weight.npy .hex, .bias, .multiplier, .shift, .table, .tile
    corners/NNN-NODE.input0.npy .hex, .output
                            codes that its sums, its rounding and its limits are hardest on
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from quantisp.files import write_atomically
from quantisp.quantization.export.request import ExportReport, ExportRequest
from quantisp.quantization.export.vectors.corners import corner_cases
from quantisp.quantization.export.vectors.files import write_tensor
from quantisp.quantization.export.vectors.verification import verify_vectors
from quantisp.quantization.graph.nodes import Mask, Node
from quantisp.quantization.integer import Codes, IntegerExecutor, NodeIntegers
from quantisp.quantization.integer.operations import encode_operation

__all__ = ["MANIFEST", "write_vectors"]

MANIFEST = "manifest.json"
SCHEMA = 1
SHIFT_BITS = 6
MULTIPLIER_BITS = 16


def write_vectors(request: ExportRequest) -> ExportReport:
    """Write test vectors, and verify them against the specification.

    Raises:
        RunError: they are not what the specification gives.
    """
    network, folder = request.network, request.folder
    executor = IntegerExecutor(network)
    names = [node.name for node in network.graph.nodes]
    found = executor.run(request.sample.x, names)
    entries: list[dict[str, Any]] = []
    for number, (node, own) in enumerate(network):
        request.on_progress("writing vectors", number, len(names))
        label = f"{number:03d}-{re.sub(r'[^A-Za-z0-9_]+', '_', node.name)[:60]}"
        entries.append(
            {
                "name": node.name,
                "operation": encode_operation(node.operation),
                "where": node.where,
                "inputs": list(node.inputs),
                "codes": _described(own.codes),
                "parameters": _parameters(folder, f"parameters/{label}", node, own),
                "corners": _corners(request, f"corners/{label}", node, executor),
                "crop": _codes(folder, f"crop/{label}", found[node.name], own.codes),
            }
        )
    accumulator = network.accumulator
    manifest = {
        "format": "quantisp-vectors",
        "schema": SCHEMA,
        "name": request.name,
        "sample": request.sample.described(),
        "tie_rule": network.tie_rule,
        "accumulator": accumulator and {"bits": accumulator.bits, "overflow": accumulator.overflow},
        "output": network.graph.output,
        "nodes": entries,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / MANIFEST, text.encode())
    checked = verify_vectors(folder / MANIFEST, network, request.on_progress)
    return ExportReport(
        verified=checked.words(),
        facts={
            "nodes": len(entries),
            "corner_cases": sum(len(e["corners"]["cases"]) for e in entries if e["corners"]),
            "values": checked.values,
            "values_by_the_specification": checked.by_specification,
        },
    )


def _described(codes: Codes) -> dict[str, Any]:
    limits = {"low": codes.low, "high": codes.high}
    return {"bits": codes.bits, "signed": codes.signed, **limits, "scale": codes.scale}


def _codes(folder: Path, name: str, values: Any, codes: Codes) -> dict[str, Any]:
    return write_tensor(folder, name, values, bits=codes.bits, signed=codes.signed)


def _corners(
    request: ExportRequest, name: str, node: Node, executor: IntegerExecutor
) -> dict[str, Any] | None:
    """The files of a node's corner cases, and what they are."""
    network, folder = request.network, request.folder
    found = corner_cases(network, node)
    if found is None:
        return None
    output = executor.run_node(node.name, found.inputs, (1, 1))
    given = [network.integers[source].codes for source in node.inputs]
    return {
        "inputs": [
            _codes(folder, f"{name}.input{k}", x, codes)
            for k, (x, codes) in enumerate(zip(found.inputs, given, strict=True))
        ],
        "output": _codes(folder, f"{name}.output", output, network.integers[node.name].codes),
        "cases": list(found.cases),
    }


def _parameters(folder: Path, name: str, node: Node, own: NodeIntegers) -> dict[str, Any]:
    """What is not data; multipliers and shifts of a layer have one column for each channel."""
    found: dict[str, Any] = {}

    def write(kind: str, values: Any, bits: int, signed: bool) -> None:
        found[kind] = write_tensor(folder, f"{name}.{kind}", values, bits=bits, signed=signed)

    if own.weights is not None:
        write("weight", own.weights.codes, own.weights.bits, signed=True)
        write("bias", own.weights.bias, own.weights.bias_bits, signed=True)
    if own.rescale is not None:
        multiplier, shift = own.rescale.multiplier, own.rescale.shift
        if own.weights is not None:
            channels = len(own.weights.bias)
            multiplier, shift = multiplier.expand(-1, channels), shift.expand(channels)
        subtracts = int(multiplier.min()) < 0
        write("multiplier", multiplier, MULTIPLIER_BITS + subtracts, signed=subtracts)
        write("shift", shift, SHIFT_BITS, signed=False)
    if own.table is not None:
        write("table", own.table, own.codes.bits, signed=own.codes.signed)
    if isinstance(node.operation, Mask):
        write("tile", node.operation.tile, 1, signed=False)
    return found
