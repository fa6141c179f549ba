"""The digest of a model changes with anything that its output depends on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from quantisp.models import model_sha256

pytestmark = pytest.mark.unit

SOURCE = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, constant=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)
        self.register_buffer("constant", torch.tensor(constant), persistent=False)

    def forward(self, x):
        return self.conv(x) + self.constant
"""


def module(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def own(path: Path, source: str = SOURCE, constant: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return module(path, source).Own(constant)


def test_the_same_code_and_weights_in_another_file_are_the_same_model(tmp_path: Path) -> None:
    assert model_sha256(own(tmp_path / "a.py")) == model_sha256(own(tmp_path / "b.py"))


def test_another_forward_is_another_model(tmp_path: Path) -> None:
    other = SOURCE.replace("self.conv(x) +", "self.conv(x) -")
    assert model_sha256(own(tmp_path / "a.py")) != model_sha256(own(tmp_path / "b.py", other))


def test_a_buffer_that_is_not_saved_counts(tmp_path: Path) -> None:
    assert model_sha256(own(tmp_path / "a.py")) != model_sha256(
        own(tmp_path / "b.py", constant=1.0)
    )


def test_one_weight_counts(tmp_path: Path) -> None:
    changed = own(tmp_path / "a.py")
    before = model_sha256(changed)
    with torch.no_grad():
        changed.get_parameter("conv.weight")[0, 0, 0, 0] += 1e-6
    assert model_sha256(changed) != before
