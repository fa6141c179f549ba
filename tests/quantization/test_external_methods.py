"""Methods that an installed package brings."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from quantisp.errors import SettingError
from quantisp.quantization import METHODS, Plan, method_names, quantize
from quantisp.quantization.methods import load_external_methods

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def install(folder: Path, *lines: str) -> None:
    """What pip leaves of a package: its module and its metadata."""
    shutil.copy(EXAMPLE / "quantisp_stochastic.py", folder)
    info = folder / "quantisp_stochastic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: quantisp-stochastic\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text("\n".join(("[quantisp.layer_methods]", *lines)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "quantisp_stochastic", raising=False)
    # What is added to them goes when the test ends.
    before = dict(METHODS)
    load_external_methods.cache_clear()
    yield tmp_path
    METHODS.clear()
    METHODS.update(before)
    load_external_methods.cache_clear()


def entry_of_the_example() -> str:
    lines = (EXAMPLE / "pyproject.toml").read_text().splitlines()
    return next(line for line in lines if line.startswith("stochastic = ")).replace('"', "")


@pytest.mark.unit
def test_the_example_is_a_method_like_any_other(folder: Path, zoo: nn.Module) -> None:
    install(folder, entry_of_the_example())
    assert "stochastic" in method_names()
    found = quantize(zoo, Plan.uniform(weight_bits=6, method="stochastic"))
    nearest = quantize(zoo, Plan.uniform(weight_bits=6))
    moved = (found.codes["grouped"] - nearest.codes["grouped"]).abs()
    assert int(moved.max()) == 1
    assert 0.1 < float((moved > 0).float().mean()) < 0.4
    again = quantize(zoo, Plan.uniform(weight_bits=6, method="stochastic"))
    assert torch.equal(found.codes["grouped"], again.codes["grouped"])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("quantisp_stochastic:nothing", "AttributeError: .*nothing"),
        ("no_such_package:method", "ModuleNotFoundError: .*no_such_package"),
        ("quantisp_stochastic:__name__", "is a str, not a function"),
    ],
)
def test_a_broken_method_is_refused_when_it_is_asked_for(
    folder: Path, zoo: nn.Module, value: str, reason: str
) -> None:
    install(folder, f"broken = {value}")
    quantize(zoo, Plan.uniform(weight_bits=6))
    with pytest.raises(SettingError, match=f"'broken' in package quantisp-stochastic.*{reason}"):
        quantize(zoo, Plan.uniform(weight_bits=6, method="broken"))


@pytest.mark.unit
def test_no_package_may_take_a_name_that_is_used(folder: Path) -> None:
    install(folder, "gptq = quantisp_stochastic:round_stochastically")
    with pytest.raises(SettingError, match="new names of methods, package quantisp-stochastic"):
        method_names()
