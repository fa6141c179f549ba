from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from quantisp.inference import network_cost
from quantisp.models import DePhaseNet

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablation.py"


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.unit
def test_every_variant_costs_about_as_much_as_the_base(ablation: ModuleType) -> None:
    for variant in ablation.VARIANTS:
        cost = network_cost(DePhaseNet(variant.config, ablation.PATTERN))
        assert 0.96 * 150e3 < cost.macs_per_px <= 150e3, variant.name


@pytest.mark.unit
def test_every_variant_is_another_trial(ablation: ModuleType) -> None:
    trials = {(v.config, tuple(v.changes.items())) for v in ablation.VARIANTS}
    assert len(trials) == len({v.name for v in ablation.VARIANTS}) == len(ablation.VARIANTS)
    assert [ablation.settings_of(v, 100, 0).steps for v in ablation.VARIANTS] == [100] * len(trials)


@pytest.mark.unit
def test_the_table_compares_with_the_base(ablation: ModuleType) -> None:
    records = [
        {"variant": name, "kmac_per_px": 149.3, "steps": 10, "curve": [{"psnr_db": psnr_db}]}
        for name, psnr_db in [("base", 36.0), ("no-skip", 35.5)]
    ]
    assert ablation.table(records).splitlines()[2:] == [
        "| base | 149.3 | 10 | 36.000 | +0.000 |",
        "| no-skip | 149.3 | 10 | 35.500 | -0.500 |",
    ]
    assert ablation.table(records[1:]).splitlines()[2:] == ["| no-skip | 149.3 | 10 | 35.500 |  |"]
