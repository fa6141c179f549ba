from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.errors import InputError, ModelError, OutputError
from quantisp.models import (
    Provenance,
    build_preset,
    load_model_file,
    model_sha256,
    read_model_file,
    write_model_file,
)

PRESET = "dephasenet-lite"
KODAK = CFAPattern.named("rgbw-kodak")
PROVENANCE = Provenance(
    domain="srgb",
    command="quantisp train --preset dephasenet-lite",
    data="train: 853 pictures",
    date="2026-01-31T12:00:00+00:00",
    revision="0831ed2",
    validation_psnr_db="40.1 (Größe ✓)",
)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return build_preset(PRESET, KODAK)


@pytest.fixture(scope="module")
def content(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("written") / "net.safetensors", net).read_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    return path


def written(
    path: Path, net: nn.Module, *, pattern: CFAPattern = KODAK, provenance: Provenance = PROVENANCE
) -> Path:
    write_model_file(path, net, preset=PRESET, pattern=pattern, provenance=provenance)
    return path


def refusal(read: Callable[[], object]) -> str:
    """The one line that a refused model is refused with."""
    with pytest.raises(ModelError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- round trip ----------------------------------------------------------------------------------


@pytest.mark.unit
def test_a_file_gives_back_what_was_written(net: nn.Module, file: Path) -> None:
    read = read_model_file(file)
    assert (read.preset, read.pattern, read.provenance) == (PRESET, KODAK, PROVENANCE)
    assert read.pattern.name == "rgbw-kodak"
    state = net.state_dict()
    assert set(read.tensors) == set(state)
    assert all(torch.equal(read.tensors[name], state[name]) for name in state)


@pytest.mark.unit
@pytest.mark.parametrize(
    "pattern",
    [
        KODAK.with_white((0.299, 0.587, 0.114)),
        KODAK.crop(top=1, left=2),
        CFAPattern(("EW", "WE"), responses=(("E", (0.0, 0.7, 0.3)),)),
    ],
    ids=["luma white", "shifted", "own letter"],
)
def test_the_pattern_is_kept(net: nn.Module, tmp_path: Path, pattern: CFAPattern) -> None:
    read = read_model_file(written(tmp_path / "net.safetensors", net, pattern=pattern))
    assert read.pattern == pattern
    assert read.pattern.tile == pattern.tile
    assert all(read.pattern.response(c) == pattern.response(c) for c in pattern.letters)


@pytest.mark.unit
def test_a_loaded_model_computes_what_the_written_one_did(net: nn.Module, file: Path) -> None:
    loaded = load_model_file(file)
    mosaic = torch.rand(1, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.model(mosaic), net.eval()(mosaic))
    assert loaded.name == "net"
    assert (loaded.pattern, loaded.provenance) == (KODAK, PROVENANCE)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert model_sha256(loaded.model) == model_sha256(net)


@pytest.mark.unit
def test_float16_weights_are_loaded_as_float32(net: nn.Module, file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    rewrite(
        file, half, lambda tensors, _: tensors.update({k: v.half() for k, v in tensors.items()})
    )
    parameters = dict(load_model_file(half).model.named_parameters())
    assert all(
        torch.equal(parameters[name], value.half().float())
        for name, value in net.named_parameters()
    )


@pytest.mark.unit
def test_the_digest_sees_every_change(net: nn.Module) -> None:
    digest = model_sha256(net)
    assert digest == model_sha256(net)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    last = next(reversed(state))
    state[last].view(-1)[-1] += 1e-6
    changed = build_preset(PRESET, KODAK)
    changed.load_state_dict(state)
    assert model_sha256(changed) != digest
    assert model_sha256(changed.half()) != model_sha256(changed.float())


@pytest.mark.unit
def test_any_length_of_header_is_read(net: nn.Module, tmp_path: Path) -> None:
    """A safetensors file begins with its header's length, which may look like a pickle's magic."""
    few = nn.Conv2d(1, 1, 1)
    seen: set[int] = set()
    for padding in range(0, 256, 8):
        provenance = Provenance(**{**vars(PROVENANCE), "command": "x" * padding})
        path = written(tmp_path / "p.safetensors", few, provenance=provenance)
        seen.add(path.read_bytes()[0])
        assert read_model_file(path).provenance.command == "x" * padding
    assert 0x80 in seen


# --- refusals ------------------------------------------------------------------------------------

Damage = Callable[[Path], object]


def shortened(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flipped(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


DAMAGE: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "four bytes": lambda path: path.write_bytes(b"abcd"),
    "half": lambda path: shortened(path, 0.5),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "header length": lambda path: flipped(path, 7),
    "header": lambda path: flipped(path, 9),
    "text": lambda path: path.write_text("weights\n" * 40),
}


@pytest.mark.unit
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_refused(file: Path, kind: str) -> None:
    DAMAGE[kind](file)
    message = refusal(lambda: read_model_file(file))
    assert "is damaged" in message
    assert str(file) in message


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.unit
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"net{suffix}"
    torch.save({"weight": Malicious()}, path, _use_new_zipfile_serialization=zipped)
    assert "is a pickle" in refusal(lambda: load_model_file(path))


@pytest.mark.unit
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "cannot read it" in refusal(lambda: read_model_file(tmp_path / "no.safetensors"))
    assert "cannot read it" in refusal(lambda: read_model_file(tmp_path))
    assert "no packaged model" in refusal(lambda: load_model_file("dephasenet-huge"))


@pytest.mark.unit
def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)
    assert "expected a model file of quantisp (schema 1)" in refusal(lambda: read_model_file(path))


Tensors = dict[str, Tensor]
Metadata = dict[str, str]
Change = Callable[[Tensors, Metadata], object]


def rewrite(source: Path, target: Path, change: Change) -> None:
    """A model file with other contents, well formed as safetensors."""
    content = source.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    metadata: Metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    tensors = safetensors.torch.load(content)
    change(tensors, metadata)
    target.write_bytes(safetensors.torch.save(tensors, metadata))


def cfa(text: str) -> Change:
    return lambda _, metadata: metadata.update(cfa=text)


CONTENTS: dict[str, tuple[Change, str]] = {
    "another schema": (lambda _, metadata: metadata.update(schema="2"), "schema '2'"),
    "another format": (lambda _, metadata: metadata.update(format="x"), "format 'x'"),
    "no provenance": (lambda _, metadata: metadata.pop("command"), "'command'"),
    "no preset": (lambda _, metadata: metadata.pop("preset"), "'preset'"),
    "no cfa": (lambda _, metadata: metadata.pop("cfa"), "'cfa'"),
    "a cfa that is not JSON": (cfa("{"), "complete metadata"),
    "a cfa that is a list": (cfa("[]"), "complete metadata"),
    "a cfa without a tile": (cfa('{"responses": []}'), "'tile'"),
    "a tile of numbers": (cfa('{"tile": [1, 2], "responses": []}'), ""),
    "an uneven tile": (cfa('{"tile": ["RG", "G"], "responses": []}'), "equal length"),
    "an unknown letter": (cfa('{"tile": ["XG", "GB"], "responses": []}'), "'X'"),
    "a short response": (cfa('{"tile": ["W"], "responses": [["W", [1, 2]]]}'), ""),
    "an unknown preset": (lambda _, metadata: metadata.update(preset="resnet"), "'resnet'"),
    "another preset": (lambda _, metadata: metadata.update(preset="dephasenet"), "differs at"),
    "a missing tensor": (lambda tensors, _: tensors.pop("tail.bias"), "tail.bias"),
    "a tensor too many": (lambda tensors, _: tensors.update(more=torch.zeros(1)), "more"),
    "another shape": (lambda tensors, _: tensors.update({"tail.bias": torch.zeros(5)}), "(5,)"),
    "NaN": (lambda tensors, _: tensors["tail.bias"].fill_(float("nan")), "NaN or infinity"),
    "infinity": (
        lambda tensors, _: tensors["skip.weight"].view(-1)[7:8].fill_(float("inf")),
        "NaN or infinity in skip.weight",
    ),
}


@pytest.mark.unit
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize("kind", CONTENTS)
def test_contents_that_do_not_fit_are_refused(file: Path, kind: str) -> None:
    change, reason = CONTENTS[kind]
    rewrite(file, file, change)
    assert reason in refusal(lambda: load_model_file(file))


@pytest.mark.unit
def test_the_rewriting_alone_spoils_nothing(file: Path) -> None:
    rewrite(file, file, lambda *_: None)
    assert load_model_file(file).pattern == KODAK


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.unit
def test_a_failing_write_leaves_the_old_file(
    net: nn.Module, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    monkeypatch.setattr(Path, "replace", full)
    other = build_preset(PRESET, KODAK)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        written(file, other)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]
    # The twin: without the failure the file does change.
    monkeypatch.undo()
    assert written(file, other).read_bytes() != before


@pytest.mark.unit
def test_a_place_that_cannot_be_written_is_refused(net: nn.Module, file: Path) -> None:
    for place in (file.parent / "no" / "net.safetensors", file / "net.safetensors", file.parent):
        with pytest.raises(InputError, match="cannot write"):
            written(place, net)
