"""Model files: safetensors with what is needed to build the network and to trust it."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, fx, nn

from quantisp.cfa import CFAPattern
from quantisp.errors import ModelError, PatternError
from quantisp.files import write_atomically

__all__ = [
    "ModelFile",
    "Origin",
    "Provenance",
    "model_sha256",
    "read_model_file",
    "read_tensors",
    "write_model_file",
]

FORMAT = "quantisp-model"
SCHEMA = "1"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from.

    Args:
        domain: of the mosaics that the network was trained on, such as ``srgb``.
        command: the command that trained it.
        data: the folder's name and number of pictures.
        date: ISO 8601, UTC.
        revision: of the source that trained it, as git names it.
        validation_psnr_db: mean over the validation pictures, as text.
    """

    domain: str
    command: str
    data: str
    date: str
    revision: str
    validation_psnr_db: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a network is, and where its weights come from.

    Args:
        preset: a preset's name, or ``package.module:factory`` of one's own network.
        pattern: its CFA; None where one's own network names none.
        provenance: of its weights.
    """

    preset: str
    pattern: CFAPattern | None
    provenance: Provenance

    def to_texts(self) -> dict[str, str]:
        """As a file's metadata, which are texts."""
        texts = {"preset": self.preset, **asdict(self.provenance)}
        if self.pattern is None:
            return texts
        cfa = {"tile": self.pattern.tile, "responses": self.pattern.responses}
        return {**texts, "cfa": json.dumps(cfa)}

    @classmethod
    def from_texts(cls, path: Path, texts: Mapping[str, str]) -> Origin:
        """Read ``to_texts``.

        Raises:
            ModelError: something is missing or garbled in the file at ``path``.
        """
        try:
            # A network of one's own may name no CFA.
            named = "cfa" in texts or ":" not in texts["preset"]
            pattern = _read_pattern(texts["cfa"]) if named else None
            provenance = Provenance(**{f.name: texts[f.name] for f in fields(Provenance)})
            return cls(preset=texts["preset"], pattern=pattern, provenance=provenance)
        except (KeyError, ValueError, TypeError, PatternError) as error:
            raise ModelError(
                f"expected complete metadata, {path} lacks or garbles {error}: "
                "fetch or train it again"
            ) from error


def _read_pattern(text: str) -> CFAPattern:
    cfa = json.loads(text)
    return CFAPattern(
        tile=tuple(cfa["tile"]),
        responses=tuple((letter, tuple(rgb)) for letter, rgb in cfa["responses"]),
    ).recognised()


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What a model file holds."""

    preset: str
    pattern: CFAPattern
    provenance: Provenance
    tensors: Mapping[str, Tensor]


def model_sha256(model: nn.Module) -> str:
    """The digest of what a network computes with, whatever the names of files and people.

    It covers every parameter and buffer with its name, type and shape, and the source of every
    class of a network of one's own: the same weights in another ``forward`` are another model.
    """
    digest = hashlib.sha256()
    for kind in sorted({type(module) for module in model.modules()}, key=lambda k: k.__qualname__):
        digest.update(f"{kind.__qualname__} {_own_source(kind)} ".encode())
    if isinstance(model, fx.GraphModule):
        # What a program does stands in its graph and the settings of its layers.
        digest.update(f"{model!r} {model.code}".encode())
    tensors = {**dict(model.named_buffers()), **model.state_dict()}
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def _own_source(kind: type[nn.Module]) -> str:
    if kind.__module__.partition(".")[0] in ("torch", "quantisp"):
        return ""
    try:
        return inspect.getsource(kind)
    # A class that was typed in at a prompt, or loaded by hand, has no source.
    except (OSError, TypeError):
        codes = [entry.__code__ for entry in vars(kind).values() if inspect.isfunction(entry)]
        return repr([(code.co_code, code.co_consts, code.co_names) for code in codes])


def write_model_file(
    path: Path, model: nn.Module, *, preset: str, pattern: CFAPattern, provenance: Provenance
) -> None:
    """Write a model file whole, or not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    origin = Origin(preset=preset, pattern=pattern, provenance=provenance)
    metadata = {"format": FORMAT, "schema": SCHEMA, **origin.to_texts()}
    write_atomically(path, save(tensors, metadata))


def read_model_file(path: Path) -> ModelFile:
    """Read a model file; nothing in it is executed.

    Raises:
        ModelError: missing, damaged, a pickle, not written by quantisp, or not finite.
    """
    metadata, tensors = read_tensors(path)
    return _interpret(path, metadata, tensors)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file; nothing in it is executed.

    Raises:
        ModelError: missing, damaged, or a pickle.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise ModelError(
            f"expected a model file at {path}, cannot read it ({error.strerror}): correct the path"
        ) from error
    # A safetensors file begins with its header's length, whose first bytes may be those of a
    # pickle (0x80) or a zip; but its ninth byte is the header's brace.
    if head[8:] != b"{" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        raise ModelError(
            f"expected a .safetensors file that quantisp wrote, {path} is a pickle, which could "
            "run any code: save the weights with safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names: list[str] = file.keys()
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"expected a .safetensors file that quantisp wrote, {path} is damaged ({error}): "
            "fetch or train it again"
        ) from error
    return metadata, tensors


def _interpret(path: Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> ModelFile:
    if metadata.get("format") != FORMAT or metadata.get("schema") != SCHEMA:
        raise ModelError(
            f"expected a model file of quantisp (schema {SCHEMA}), {path} has "
            f"format {metadata.get('format')!r}, schema {metadata.get('schema')!r}: "
            "train one with `quantisp train`"
        )
    origin = Origin.from_texts(path, metadata)
    if origin.pattern is None:
        raise ModelError(f"expected complete metadata, {path} lacks 'cfa': fetch or train it again")
    broken = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise ModelError(
            f"expected finite weights, {path} has NaN or infinity in {broken[0]}: "
            "fetch or train it again"
        )
    return ModelFile(
        preset=origin.preset,
        pattern=origin.pattern,
        provenance=origin.provenance,
        tensors=tensors,
    )
