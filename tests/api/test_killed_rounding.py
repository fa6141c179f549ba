"""Rounding a network into a file survives a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import KODAK_CFA, tiny_net, write_pictures

from quantisp.api import load_model
from quantisp.api_quantize import quantize_to_file
from quantisp.models import Provenance, write_model_file
from quantisp.quantization import Plan, walk

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("tiny_presets")]

NAMES = ("straight.safetensors", "killed.safetensors")
PROVENANCE = Provenance(
    domain="srgb", command="", data="", date="", revision="", validation_psnr_db=""
)


def test_a_killed_rounding_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same command; another one begins at the beginning, and nothing is left over."""
    model = tmp_path / "tiny.safetensors"
    write_model_file(model, tiny_net(), preset="tiny", pattern=KODAK_CFA, provenance=PROVENANCE)
    others = [write_pictures(tmp_path / "others", 2, 96)]
    plan = Plan.uniform(weight_bits=4, method="gptq", granularity="channel")
    folder = tmp_path / "out"
    folder.mkdir()

    def run(name: str, plan: Plan, stop: int = 0) -> None:
        """Stopped after so many layers, if any."""

        def on_layer(done: int, _total: int) -> None:
            if done == stop:
                raise KeyboardInterrupt

        quantize_to_file(
            model, plan, folder / name, calibration=others, command="q", on_layer=on_layer
        )

    rounds: list[str] = []
    genuine = walk.CALIBRATED["gptq"]

    def counted(layer: Any, *others: Any) -> Any:
        rounds.append("gptq")
        return genuine(layer, *others)

    monkeypatch.setitem(walk.CALIBRATED, "gptq", counted)
    run(NAMES[0], plan)
    layers = len(rounds)
    with pytest.raises(KeyboardInterrupt):
        run(NAMES[1], plan, stop=3)
    assert {path.name for path in folder.iterdir()} == {NAMES[0], f".{NAMES[1]}.rounding"}
    assert len(rounds) == layers + 3
    run(NAMES[1], plan)
    assert len(rounds) == 2 * layers
    straight, killed = (load_model(folder / name) for name in NAMES)
    probe = torch.rand(1, 1, 16, 20, generator=torch.Generator().manual_seed(3))
    assert torch.equal(straight(probe), killed(probe))
    with pytest.raises(KeyboardInterrupt):
        run(NAMES[1], plan, stop=3)
    run(NAMES[1], Plan.uniform(weight_bits=5, method="gptq", granularity="channel"))
    assert len(rounds) == 3 * layers + 3
    assert {path.name for path in folder.iterdir()} == set(NAMES)
