"""Integer networks on disk: a folder of one JSON document and one safetensors file.

::

    network.json            what is computed from what, widths, limits; names the other file
    tensors-DIGEST.safetensors
        NAME/weight         int8 to 8 bits, else int16, in the shape of PyTorch's layer
        NAME/bias           int64, one for each output channel
        NAME/multiplier     int32, a row for each input, a column for each output channel or one
        NAME/shift          uint8
        NAME/table          int32
        NAME/tile           uint8, of a mask

The tensors' file is named after its content and written first, the document last, so that a folder
holds a whole network at any moment. Nothing in it is executed, and every field is checked.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from quantisp.errors import ModelError, SettingError
from quantisp.files import make_folder, write_atomically
from quantisp.quantization.activations.rescaling import Rescale
from quantisp.quantization.activations.settings import TIE_RULES
from quantisp.quantization.graph.nodes import Graph, Mask, Node
from quantisp.quantization.integer.bounds import worst_accumulators
from quantisp.quantization.integer.channels import channels_of
from quantisp.quantization.integer.checks import check_node
from quantisp.quantization.integer.network import (
    Accumulator,
    Codes,
    IntegerNetwork,
    NodeIntegers,
    Weights,
)
from quantisp.quantization.integer.operations import decode_operation, encode_operation

__all__ = ["DOCUMENT", "load_integer_network", "network_content", "save_integer_network"]

FORMAT = "quantisp-integer-network"
SCHEMA = 1
DOCUMENT = "network.json"
TENSORS = {
    "weight": (torch.int8, torch.int16),
    "bias": (torch.int64,),
    "multiplier": (torch.int32,),
    "shift": (torch.uint8,),
    "table": (torch.int32,),
    "tile": (torch.uint8,),
}


def save_integer_network(folder: Path, network: IntegerNetwork) -> None:
    """Write a network whole, or not at all.

    Args:
        folder: made if it is not there; another network in it is replaced.
        network: what to write.

    Raises:
        OutputError: the place cannot be written to.
        ModelError: it has sizes that no document holds.
    """
    content = save(_tensors(network))
    digest = hashlib.sha256(content).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    document = _document(network, {"file": name, "sha256": digest})
    make_folder(folder)
    write_atomically(folder / name, content)
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_atomically(folder / DOCUMENT, text.encode())
    for other in folder.glob("tensors-*.safetensors"):
        if other.name != name:
            other.unlink(missing_ok=True)


def network_content(network: IntegerNetwork) -> bytes:
    """What a network computes, wherever it comes from: equal networks give equal bytes."""
    digest = hashlib.sha256(save(_tensors(network))).hexdigest()
    document = _document(replace(network, origin={}), {"sha256": digest})
    return json.dumps(document, allow_nan=False).encode()


def _document(network: IntegerNetwork, tensors: Mapping[str, str]) -> dict[str, Any]:
    worst = {found.node: found.bits for found in worst_accumulators(network)}
    accumulator = network.accumulator
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "tie_rule": network.tie_rule,
        "accumulator": accumulator and {"bits": accumulator.bits, "overflow": accumulator.overflow},
        "size": network.graph.size and list(network.graph.size),
        "output": network.graph.output,
        "origin": dict(network.origin),
        "tensors": dict(tensors),
        "nodes": [_node_object(node, own, worst) for node, own in network],
    }


def load_integer_network(path: Path) -> IntegerNetwork:
    """Read what :func:`save_integer_network` wrote.

    Args:
        path: the folder, or the document in it.

    Raises:
        ModelError: missing, damaged, or written by a newer quantisp.
    """
    document = path / DOCUMENT if path.is_dir() else path
    content = _read_document(document)
    try:
        return _network(content, _read_tensors(document.parent, content))
    except (ModelError, SettingError, KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f"expected an integer network, {document} is damaged ({what}): write it again"
        ) from error


def _node_object(node: Node, own: NodeIntegers, worst: Mapping[str, int]) -> dict[str, Any]:
    codes = own.codes
    found: dict[str, Any] = {
        "name": node.name,
        "operation": encode_operation(node.operation),
        "inputs": list(node.inputs),
        "where": node.where,
        "codes": {
            "bits": codes.bits,
            "signed": codes.signed,
            "low": codes.low,
            "high": codes.high,
            "scale": codes.scale,
        },
    }
    if own.weights is not None:
        found["weight_bits"], found["bias_bits"] = own.weights.bits, own.weights.bias_bits
        found["worst_accumulator_bits"] = worst[node.name]
    return found


def _tensors(network: IntegerNetwork) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for node, own in network:
        if own.weights is not None:
            narrow = torch.int8 if own.weights.bits <= 8 else torch.int16
            tensors[f"{node.name}/weight"] = own.weights.codes.to(narrow)
            tensors[f"{node.name}/bias"] = own.weights.bias
        if own.rescale is not None:
            tensors[f"{node.name}/multiplier"] = own.rescale.multiplier.to(torch.int32)
            tensors[f"{node.name}/shift"] = own.rescale.shift.to(torch.uint8)
        if own.table is not None:
            tensors[f"{node.name}/table"] = own.table.to(torch.int32)
        if isinstance(node.operation, Mask):
            tensors[f"{node.name}/tile"] = node.operation.tile.to(torch.uint8)
    return {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
    }


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"expected a folder of an integer network, {path} cannot be read "
            f"({error.strerror or error}): correct the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"expected an integer network, {path} is no JSON ({str(error)[:80]}): write it again"
        ) from error
    content = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    if content.get("format") != FORMAT:
        raise ModelError(
            f"expected an integer network, {path} has format {content.get('format')!r}: give a "
            "folder that quantisp wrote one to"
        )
    if type(content.get("schema")) is not int or content["schema"] != SCHEMA:
        raise ModelError(
            f"expected an integer network of schema {SCHEMA}, {path} has schema "
            f"{content.get('schema')!r}: update quantisp, or write it again"
        )
    return content


def _read_tensors(folder: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    name, digest = (str(content["tensors"][key]) for key in ("file", "sha256"))
    if Path(name).name != name:
        raise ModelError(f"expected a file beside it, found {name!r}")
    try:
        found = (folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(found).hexdigest() != digest:
        raise ModelError(f"the content of {name} is not what was written")
    try:
        tensors = load(found)
    except SafetensorError as error:
        raise ModelError(f"{name} is no safetensors file") from error
    for key, value in tensors.items():
        kind = key.rpartition("/")[2]
        if kind not in TENSORS or value.dtype not in TENSORS[kind] or value.numel() == 0:
            raise ModelError(f"{key} is no tensor of an integer network")
    return tensors


def _network(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> IntegerNetwork:
    tie_rule, accumulator, size = content["tie_rule"], content["accumulator"], content["size"]
    if tie_rule not in TIE_RULES:
        raise ModelError(f"expected a tie rule of {', '.join(TIE_RULES)}, found {tie_rule!r}")
    nodes: list[Node] = []
    integers: dict[str, NodeIntegers] = {}
    channels: dict[str, int | None] = {}
    entries = content["nodes"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError("expected a list of objects as nodes, found something else")
    for entry in cast("list[dict[str, Any]]", entries):
        node, own = _node(entry, tensors)
        check_node(node, own, integers)
        channels[node.name] = channels_of(node, own, [channels[name] for name in node.inputs])
        nodes.append(node)
        integers[node.name] = own
    if content["output"] not in integers:
        raise ModelError(f"expected a node as the output, found {content['output']!r}")
    if not isinstance(content["origin"], dict):
        raise ModelError(f"expected texts as the origin, found {content['origin']!r}")
    used = {name.rpartition("/")[0] for name in tensors}
    if used - integers.keys():
        raise ModelError(f"there is no node of the tensors of {min(used - integers.keys())!r}")
    return IntegerNetwork(
        graph=Graph(
            nodes=tuple(nodes),
            output=content["output"],
            size=None if size is None else (_natural(size[0]), _natural(size[1])),
        ),
        integers=integers,
        tie_rule=tie_rule,
        origin={_text(k): _text(v) for k, v in content["origin"].items()},
        accumulator=None
        if accumulator is None
        else Accumulator(bits=_natural(accumulator["bits"]), overflow=accumulator["overflow"]),
    )


def _node(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Node, NodeIntegers]:
    name = _text(entry["name"])

    def tensor(kind: str) -> Tensor:
        return tensors[f"{name}/{kind}"]

    kind = entry["operation"]["kind"]
    operation = decode_operation(
        entry["operation"], tensor("tile").float() if kind == "Mask" else None
    )
    node = Node(
        name=name,
        operation=operation,
        inputs=tuple(_text(item) for item in entry["inputs"]),
        where=_text(entry["where"]),
    )
    codes = entry["codes"]
    scale = codes["scale"]
    if type(scale) not in (int, float) or not (math.isfinite(scale) and scale > 0):
        raise ModelError(f"expected a scale above 0 in node {name!r}, found {scale!r}")
    if type(codes["signed"]) is not bool:
        raise ModelError(f"expected signed true or false in node {name!r}")
    weights = rescale = table = None
    if node.layer is not None:
        weights = Weights(
            codes=tensor("weight").to(torch.int32),
            bits=_natural(entry["weight_bits"]),
            bias=tensor("bias"),
            bias_bits=_natural(entry["bias_bits"]),
        )
    if f"{name}/multiplier" in tensors:
        rescale = Rescale(
            multiplier=tensor("multiplier").to(torch.int64), shift=tensor("shift").to(torch.int64)
        )
    if f"{name}/table" in tensors:
        table = tensor("table").to(torch.int64)
    return node, NodeIntegers(
        codes=Codes(
            bits=_natural(codes["bits"]),
            signed=codes["signed"],
            low=_whole(codes["low"]),
            high=_whole(codes["high"]),
            scale=float(scale),
        ),
        weights=weights,
        rescale=rescale,
        table=table,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ModelError(f"expected a text, found {value!r}")
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ModelError(f"expected a whole number, found {value!r}")
    return value


def _natural(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ModelError(f"expected a whole number above 0, found {value!r}")
    return value
