"""One thread: the networks here are too small for two. And a preset that trains in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from api_kit import BUILDERS, write_pictures

from quantisp.models import zoo


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """``tiny`` and ``other`` instead of the presets."""
    monkeypatch.setattr(zoo, "BUILDERS", BUILDERS)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` and ``val``: pictures to train on, and to validate on."""
    folder = tmp_path_factory.mktemp("data")
    write_pictures(folder / "train", count=3, px=96)
    write_pictures(folder / "val", count=2, px=40)
    return folder
