"""``torch.export`` programs as files: read by us, so that nothing in them is ever executed.

``torch.export.load`` unpickles (weights that ask for it, constants, sample inputs), loads compiled
libraries, and evaluates the file's texts as Python (guards, symbolic sizes). Here a file gives
JSON and raw numbers; what would need more is refused.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantisp.errors import ModelError

__all__ = ["DTYPES", "Pt2File", "read_pt2"]

SCHEMA_MAJOR = 8
MODEL = "models/model.json"
# By the numbers of the file format.
DTYPES: Mapping[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pt2File:
    """A program as it was stored.

    Args:
        graph: inputs, outputs, nodes and the sizes of tensors.
        signature: what the graph's inputs and outputs stand for.
        ranges: the least and largest value of each symbolic size, by its text.
        tensors: parameters, buffers and constants, by name.
        parameters: the names of those that are parameters.
    """

    graph: Mapping[str, Any]
    signature: Mapping[str, Any]
    ranges: Mapping[str, Mapping[str, int | None]]
    tensors: Mapping[str, Tensor]
    parameters: frozenset[str]


def read_pt2(path: Path) -> Pt2File:
    """Read a program that ``torch.export.save`` of torch 2.9 or newer wrote.

    Raises:
        ModelError: missing, damaged, of another version, or with something to unpickle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except OSError as error:
        raise ModelError(
            f"expected a program at {path}, cannot read it ({error.strerror}): correct the path"
        ) from error
    # Damage shows itself in any of these.
    except (
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise ModelError(
            f"expected a program of torch.export in {path}, it is damaged or no such file "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}): export it again"
        ) from error


def _read(path: Path, archive: zipfile.ZipFile) -> Pt2File:
    packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    found = [name for name in archive.namelist() if f"/{name}".endswith(f"/{MODEL}")]
    if packed or len(found) != 1:
        raise ModelError(
            f"expected one program of torch.export in {path}, stored as it is, found {len(found)}: "
            "save it with torch.export.save of torch 2.9 or newer"
        )
    root = found[0].removesuffix(MODEL)
    program = json.loads(archive.read(found[0]))
    major = program["schema_version"]["major"]
    if major != SCHEMA_MAJOR:
        raise ModelError(
            f"expected a program of schema {SCHEMA_MAJOR}, {path} has {major}: export it with "
            "torch 2.9 or newer"
        )
    tensors: dict[str, Tensor] = {}
    parameters: set[str] = set()
    for kind in ("weights", "constants"):
        config = f"{root}data/{kind}/model_{kind}_config.json"
        if config not in archive.namelist():
            raise ModelError(
                f"expected raw {kind} in {path}, found none that need no unpickling, which could "
                "run any code: export it again with torch 2.9 or newer"
            )
        for name, entry in json.loads(archive.read(config))["config"].items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise ModelError(
                    f"expected numbers as {name!r} in {path}, found a pickle, which could run any "
                    "code: export a network whose state is plain tensors"
                )
            raw = archive.read(f"{root}data/{kind}/{entry['path_name']}")
            tensors[name] = _tensor(raw, entry["tensor_meta"])
            if entry["is_param"]:
                parameters.add(name)
    return Pt2File(
        graph=program["graph_module"]["graph"],
        signature=program["graph_module"]["signature"],
        ranges=program["range_constraints"],
        tensors=tensors,
        parameters=frozenset(parameters),
    )


def _tensor(raw: bytes, meta: Mapping[str, Any]) -> Tensor:
    dtype = DTYPES[meta["dtype"]]
    sizes, strides = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
    if not raw:
        return torch.zeros(sizes, dtype=dtype)
    flat = torch.frombuffer(bytearray(raw), dtype=dtype)
    # PyTorch refuses what lies outside the numbers.
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])).clone()
