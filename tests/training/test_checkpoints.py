from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import equal

from quantisp.errors import ModelError, OutputError
from quantisp.training.checkpoints import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.unit
STATE: dict[str, Any] = {"step": 7, "curve": [], "model": {"weight": torch.arange(1000.0)}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def test_round_trip(path: Path) -> None:
    assert equal(read_checkpoint(path), STATE)
    assert os.listdir(path.parent) == ["checkpoint.pt"]


def test_none_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found none: start without --resume"):
        read_checkpoint(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match="cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"\0", b"not a checkpoint\n" * 100, b"PK\3\4" + bytes(500)])
def test_something_else(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read.*remove it"):
        read_checkpoint(path)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("sprung"),)


def test_a_pickle_that_runs_code_does_not_run_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    torch.save({**STATE, "extra": Trap()}, path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_checkpoint(path)
    assert not Path("sprung").exists()
    torch.load(path, weights_only=False)
    assert Path("sprung").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_checkpoint(path, {**STATE, "step": 8})
    assert equal(read_checkpoint(path), STATE)
    assert os.listdir(path.parent) == ["checkpoint.pt"]
