"""Methods that an installed package brings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from quantisp.errors import RunError, SettingError
from quantisp.quantization import (
    CALIBRATED,
    METHODS,
    NETWORK,
    Plan,
    measure_sensitivity,
    method_names,
    quantize,
)
from quantisp.quantization.methods import load_external_methods

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def install(folder: Path, *lines: str, group: str = "layer_methods") -> None:
    """What pip leaves of a package: its module and its metadata."""
    shutil.copy(EXAMPLE / "quantisp_stochastic.py", folder)
    info = folder / "quantisp_stochastic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: quantisp-stochastic\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text("\n".join((f"[quantisp.{group}]", *lines)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "quantisp_stochastic", raising=False)
    # What is added to them goes when the test ends.
    before = [(table, dict(table)) for table in (METHODS, CALIBRATED, NETWORK)]
    load_external_methods.cache_clear()
    yield tmp_path
    for table, content in before:
        table.clear()
        table.update(content)
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


@pytest.mark.unit
@pytest.mark.parametrize(
    ("top", "used"),
    [
        ("", "quantisp"),
        ("from quantisp.quantization import Plan\nPlan.uniform(method='stochastic')\n", "quantisp"),
        ("", "quantisp_stochastic"),
    ],
)
def test_a_package_may_import_quantisp_whoever_comes_first(
    tmp_path: Path, top: str, used: str
) -> None:
    """In a process of its own: here quantisp has been imported long ago."""
    install(tmp_path, entry_of_the_example())
    module = tmp_path / "quantisp_stochastic.py"
    source = module.read_text()
    module.write_text(source.replace("import torch\n", f"import torch\n{top}", 1))
    out = tmp_path / "w6.safetensors"
    options = ["quantize", "--method", "stochastic", "--weight-bits", "6", "--out", str(out)]
    ran = subprocess.run(
        [sys.executable, "-c", f"import {used}, quantisp.cli.main as m; m.main()", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert out.exists()


# Functions that go wrong: their group, what they do, and what is said of it.
WRONG = [
    ("layer_methods", "1 / 0", r"method 'wrong' of package \S+, found ZeroDivisionError"),
    ("layer_methods", "given[5]", "IndexError: tuple index out of range: mend that package"),
    ("layer_methods", "given[1].bits.nothing", "AttributeError: 'int' object has"),
    ("layer_methods", "refuse()", "in layer '0': expected 4 bits at most"),
    ("layer_methods", "None", "found a NoneType instead of a QuantizedWeight"),
    ("layer_methods", "given[0]", "found a Tensor instead of a QuantizedWeight"),
    ("layer_methods", "coded(given[0][:1])", r"codes of shape \(1, "),
    ("layer_methods", "coded(given[0], torch.ones(7))", "found SettingError: .* a scale of shape"),
    ("calibrated_methods", "coded(given[1])", "a QuantizedWeight instead of a QuantizedWeight and"),
    ("calibrated_methods", "(None, None)", "found a NoneType instead of a QuantizedWeight"),
    ("calibrated_methods", "(coded(given[1]), torch.ones(99))", "a bias that does not fit"),
]


def install_wrong(folder: Path, group: str, does: str) -> None:
    install(folder, "wrong = quantisp_wrong:wrong", group=group)
    (folder / "quantisp_wrong.py").write_text(
        "import torch\n"
        "from quantisp.errors import SettingError\n"
        "from quantisp.quantization import QuantizedWeight\n"
        "def refuse():\n    raise SettingError('expected 4 bits at most')\n"
        "def coded(weight, scale=torch.tensor(1.0), axis=None):\n"
        "    return QuantizedWeight(codes=weight.int(), scale=scale, axis=axis)\n"
        f"def wrong(*given):\n    return {does}\n"
    )
    sys.modules.pop("quantisp_wrong", None)


@pytest.mark.unit
@pytest.mark.parametrize(("group", "does", "message"), WRONG)
def test_a_method_that_fails_is_named_with_its_layer(
    folder: Path, group: str, does: str, message: str
) -> None:
    install_wrong(folder, group, does)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    plan = Plan.uniform(weight_bits=6, method="wrong")
    inputs = [torch.rand(1, 3, 8, 8)]
    runs = (
        lambda: quantize(network, plan, None if group == "layer_methods" else inputs),
        lambda: measure_sensitivity(network, plan, inputs),
    )
    for run in runs:
        with pytest.raises((RunError, SettingError), match=message) as caught:
            run()
        assert "layer '0'" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("1 / 0", "method 'wrong' of package .*ZeroDivisionError"),
        ("None", "a NoneType instead of a RoundedNetwork"),
        ("rounded(given[0], torch.nn.ReLU())", "a network that is no copy of the float one"),
        ("rounded(given[0], given[0].model)", "a NoneType .* for layer '0'"),
        (
            "rounded(given[0], given[0].model, {n: coded(w) for n in ('0', '1')})",
            "expected layer '1' in float, found codes: method 'wrong' is at fault",
        ),
    ],
)
def test_a_method_of_networks_that_fails_is_named(folder: Path, does: str, message: str) -> None:
    install_wrong(folder, "network_methods", does.replace("(w)", "(given[0].model[0].weight)"))
    with (folder / "quantisp_wrong.py").open("a") as file:
        file.write(
            "from quantisp.quantization import RoundedNetwork\n"
            "def rounded(task, network, weights={}):\n"
            "    return RoundedNetwork(network=network, weights=weights)\n"
        )
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    plan = Plan.from_json(
        json.dumps(
            {
                "schema": 1,
                "default": {"weight_bits": 6, "method": "wrong"},
                "layers": {"1": {"weight_bits": None}},
            }
        )
    )
    with pytest.raises(RunError, match=message):
        quantize(network, plan, [torch.rand(1, 3, 8, 8)])


@pytest.mark.unit
def test_a_name_that_is_used_is_refused_again(folder: Path) -> None:
    """What was said first is said next time: nothing is added by halves."""
    install(folder, entry_of_the_example(), "[quantisp.network_methods]", "gptq = nothing:nothing")
    for _ in range(2):
        with pytest.raises(SettingError, match="brings another 'gptq'"):
            method_names()
    assert "stochastic" not in METHODS
