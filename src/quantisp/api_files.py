"""Files of quantized networks: what the models' room and the quantizers' room know, in one file.

A safetensors file: the tensors and texts of :func:`quantisp.quantization.pack_quantized`, and as
further texts the format, its schema, the preset and CFA, the digest of the float network, and the
provenance.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from quantisp import __version__
from quantisp.errors import ModelError
from quantisp.files import write_atomically
from quantisp.models import (
    LoadedModel,
    Origin,
    Provenance,
    build_structure,
    load_own_model,
    read_tensors,
)
from quantisp.quantization import (
    QuantizedModel,
    pack_quantized,
    unpack_quantized,
    without_batch_norms,
)

__all__ = [
    "QuantizedOrigin",
    "file_texts",
    "holds_quantized",
    "load_quantized",
    "made_now",
    "printable",
    "save_quantized",
    "source_revision",
]

FORMAT = "quantisp-quantized-model"
SCHEMA = "1"


@dataclass(frozen=True, kw_only=True)
class QuantizedOrigin:
    """Where a quantized network comes from.

    Args:
        origin: the network; its provenance is of the codes.
        float_sha256: the digest of the float network that was quantized, or that fine-tuning
            began with.
        folded: the layer that each batch normalisation was folded into, by name.
    """

    origin: Origin
    float_sha256: str
    folded: Mapping[str, str] = field(default_factory=dict[str, str])


def save_quantized(path: Path, quantized: QuantizedModel, origin: QuantizedOrigin) -> None:
    """Write a quantized network whole, or not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    tensors, texts = pack_quantized(quantized)
    write_atomically(path, save(tensors, {**file_texts(origin), **texts}))


def file_texts(origin: QuantizedOrigin) -> dict[str, str]:
    """What the file of a quantized network says beside its plan and tensors."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        **origin.origin.to_texts(),
        "float_sha256": origin.float_sha256,
        **({"folded": json.dumps(dict(origin.folded))} if origin.folded else {}),
    }


def made_now(found: LoadedModel, command: str, data: str) -> Provenance:
    """The provenance of codes that are made of a float network now.

    Args:
        found: the float network.
        command, data: what makes them, and of what.
    """
    return Provenance(
        domain="not known" if found.provenance is None else found.provenance.domain,
        command=printable(command),
        data=printable(data),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=source_revision(),
        validation_psnr_db="not measured",
    )


def holds_quantized(path: Path) -> bool:
    """Whether a file says that it holds a quantized network; False if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


def load_quantized(path: Path, factory: str | None = None) -> LoadedModel:
    """Read what :func:`save_quantized` wrote: the same codes, and the same outputs to the last bit.

    Args:
        path: the file; nothing in it is executed.
        factory: ``package.module:factory`` of a network of one's own. A file alone does not name
            code to be run.

    Raises:
        ModelError: missing, damaged, written by a newer quantisp, or of another network.
    """
    texts, tensors = read_tensors(path)
    if texts.get("format") != FORMAT or texts.get("schema") != SCHEMA:
        raise ModelError(
            f"expected a quantized model file of schema {SCHEMA}, {path} has "
            f"format {texts.get('format')!r}, schema {texts.get('schema')!r}: "
            "update quantisp, or quantize again"
        )
    origin = Origin.from_texts(path, texts)
    network = _structure(path, origin, factory)
    try:
        network = without_batch_norms(network, _folded(texts.get("folded", "{}")))
        quantized = unpack_quantized(network, tensors, texts)
    except ModelError as error:
        raise ModelError(
            f"expected a quantized {factory or origin.preset}, {path} is damaged or of another "
            f"network ({error}): fetch it, or quantize again"
        ) from error
    return LoadedModel(
        name=path.stem,
        model=quantized,
        pattern=quantized.pattern,
        provenance=origin.provenance,
        preset=factory or origin.preset,
        float_sha256=texts.get("float_sha256"),
    )


def _structure(path: Path, origin: Origin, factory: str | None) -> nn.Module:
    if factory is not None:
        return load_own_model(factory, None).model
    if ":" in origin.preset or origin.pattern is None:
        raise ModelError(
            f"expected {origin.preset} beside its quantized weights, found {path} alone, which "
            f"runs no code: pass --model {origin.preset} --weights {path}"
        )
    return build_structure(origin.preset, origin.pattern)


def _folded(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    items = cast("dict[Any, Any]", found).items() if isinstance(found, dict) else [(None, None)]
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in items):
        raise ModelError("what was folded is garbled")
    return dict(items)


def printable(text: str) -> str:
    """The text as UTF-8 holds it: file names may be any bytes, and metadata is UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def source_revision() -> str:
    """The revision of the source, as git names it; of an installed package, its version."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"quantisp {__version__}"
    return described.stdout.strip()
