"""Integer networks as something else: one format, one file or package, and one line here."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

from quantisp.errors import SettingError
from quantisp.files import write_atomically, write_folder
from quantisp.quantization.export.request import ExportReport, ExportRequest, Sample, Writer
from quantisp.quantization.export.shapes import (
    check_sample_size,
    input_channels,
    size_step,
    tensor_shapes,
)

__all__ = [
    "MARKER",
    "SIZED",
    "WRITERS",
    "ExportReport",
    "ExportRequest",
    "Sample",
    "Writer",
    "check_sample_size",
    "find_writer",
    "input_channels",
    "size_step",
    "tensor_shapes",
    "write_export",
]

MARKER = "export.json"
SCHEMA = 1
# To add a format: one file or package beside this one, and one line here.
WRITERS: Mapping[str, str] = MappingProxyType(
    {
        "c": "c:write_c",
        "onnx": "onnx:write_onnx",
        "qonnx": "onnx:write_qonnx",
        "vectors": "vectors:write_vectors",
    }
)
# Those that may be for one size of picture.
SIZED = ("onnx", "qonnx")


def find_writer(name: str) -> Writer:
    """The writer of a format; its module is imported now.

    Raises:
        SettingError: no such format.
    """
    if name not in WRITERS:
        raise SettingError(
            f"expected a format among {', '.join(WRITERS)}, found {name!r}: correct --format"
        )
    module, _, function = WRITERS[name].partition(":")
    return cast("Writer", getattr(importlib.import_module(f"{__name__}.{module}"), function))


def write_export(file_format: str, request: ExportRequest, out: Path) -> ExportReport:
    """Write a network in some format, whole and verified, or not at all.

    Args:
        file_format: one of ``WRITERS``.
        request: what to write; its ``folder`` is not looked at.
        out: the folder to make; an earlier export in it is replaced.

    Raises:
        SettingError: no such format.
        ModelError: the format cannot hold the network.
        RunError: what was written gives something else than the network.
        OutputError: the place is taken, or cannot be written to.
    """
    writer = find_writer(file_format)

    def fill(folder: Path) -> ExportReport:
        report = writer(request.into(folder))
        document = {
            "format": f"quantisp-export-{file_format}",
            "schema": SCHEMA,
            "name": request.name,
            "origin": dict(request.network.origin),
            "sample": request.sample.described(),
            "verified": report.verified,
            "facts": dict(report.facts),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(folder / MARKER, text.encode())
        return report

    return write_folder(out, MARKER, fill)
