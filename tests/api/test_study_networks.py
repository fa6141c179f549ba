"""The quantized networks that a study leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import KODAK_CFA, tiny_net, write_pictures

from quantisp.api import evaluate, find_model, study
from quantisp.api_quantize import quantize_to_file
from quantisp.errors import ModelError
from quantisp.models import Provenance, write_model_file
from quantisp.quantization import Plan, QuantizedModel

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("tiny_presets")]


def test_a_study_keeps_the_networks_that_look_at_pictures(tmp_path: Path) -> None:
    """As the study measured them, and as ``quantize`` makes them."""
    model = tmp_path / "tiny.safetensors"
    texts = Provenance(
        domain="root", command="", data="", date="", revision="", validation_psnr_db=""
    )
    write_model_file(model, tiny_net(), preset="tiny", pattern=KODAK_CFA, provenance=texts)
    studied = write_pictures(tmp_path / "studied", 2, 64)
    others = [write_pictures(tmp_path / "others", 2, 96)]
    found = study(
        str(model),
        studied,
        weight_bits=[4],
        methods=["rtn", "gptq"],
        granularities=["channel"],
        budgets=["mean-bits=6"],
        calibration=others,
        out=tmp_path / "out",
    )
    kept = tmp_path / "out" / "networks"
    names = [path.name for path in sorted(kept.iterdir())]
    assert names == ["gptq-channel-4-bits.safetensors", "gptq-channel-mean-bits=6.safetensors"]
    rows = {row.plan or row.weight_bits: row for row in found.rows if row.method == "gptq"}
    for name, row in zip(names, (rows[4], rows["mean-bits=6"]), strict=True):
        measured = evaluate(kept / name, studied)
        assert measured.psnr_db == pytest.approx(row.psnr_db, abs=1e-6)
    plan = Plan.uniform(weight_bits=4, method="gptq", granularity="channel")
    out = tmp_path / "by-hand.safetensors"
    quantize_to_file(model, plan, out, calibration=others, command="quantisp")
    study_file, by_hand = (find_model(path) for path in (kept / names[0], out))
    assert isinstance(study_file.model, QuantizedModel)
    assert isinstance(by_hand.model, QuantizedModel)
    probe = torch.rand(1, 1, 16, 20, generator=torch.Generator().manual_seed(3))
    assert torch.equal(study_file.model(probe), by_hand.model(probe))
    assert study_file.float_sha256 == by_hand.float_sha256
    assert study_file.provenance is not None
    assert by_hand.provenance is not None
    assert study_file.provenance.command == "quantisp study"
    assert study_file.provenance.data == "calibrated on 2 pictures, seed 0"
    assert study_file.provenance.domain == by_hand.provenance.domain == "root"


def test_a_study_of_what_cannot_be_built_again_keeps_no_model(tmp_path: Path) -> None:
    """But goes on where it was all the same."""
    options: dict[str, Any] = {
        "weight_bits": [4],
        "methods": ["gptq:channel"],
        "calibration": [write_pictures(tmp_path / "others", 2, 96)],
        "out": tmp_path / "out",
    }
    studied = write_pictures(tmp_path / "studied", 2, 64)
    first = study(tiny_net(), studied, **options)
    (path,) = (tmp_path / "out" / "networks").iterdir()
    with pytest.raises(ModelError, match="gptq-channel-4-bits"):
        find_model(path)
    assert study(tiny_net(), studied, **options).to_json() == first.to_json()
