"""Studies in integers, and integer networks in folders, from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from api_kit import tiny_net

import quantisp
from quantisp.api import find_model
from quantisp.cli.main import app
from quantisp.errors import OutputError, SettingError
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    load_integer_network,
    read_profile,
)
from quantisp.reports import integer_lines, study_markdown
from quantisp.reports.page import report_page

pytestmark = pytest.mark.unit


def study(data: Path, **options):
    return quantisp.study(
        tiny_net(),
        data / "val",
        weight_bits=[8],
        activation_bits=[None, 8],
        granularities=["channel"],
        execution="integer",
        **options,
    )


def test_a_study_in_integers_shows_the_gap(data: Path) -> None:
    found = study(data)
    in_float, in_integers = found.rows
    assert in_float.simulated_psnr_db is None
    assert in_integers.simulated_psnr_db == pytest.approx(in_integers.psnr_db, abs=0.05)
    assert in_integers.differing_outputs is not None
    assert 0.0 <= in_integers.differing_outputs < 0.01
    assert "run as integers" in str(found.protocol["activations"])
    (line,) = integer_lines(found)
    assert line.startswith("8 bits, A8, rtn per channel: ")
    assert line in study_markdown(found)
    simulated = quantisp.study(
        tiny_net(), data / "val", weight_bits=[8], activation_bits=[8], granularities=["channel"]
    )
    assert simulated.rows[0].psnr_db == in_integers.simulated_psnr_db
    assert integer_lines(simulated) == []


def test_a_narrow_accumulator_costs_quality(data: Path) -> None:
    wide = study(data).rows[1].psnr_db
    narrow = study(data, accumulator=Accumulator(bits=14, overflow="clamp"))
    assert narrow.rows[1].psnr_db < wide - 0.5
    assert "accumulators of 14 bits, clamp beyond" in str(narrow.protocol["activations"])


def test_sums_that_fit_cost_less_than_sums_that_wrap(data: Path, tmp_path: Path) -> None:
    bits, plan = 18, quantisp.Plan.uniform(weight_bits=8, activation_bits=8)
    wrapped = study(data, accumulator=Accumulator(bits=14, overflow="wrap")).rows[1]
    fitted = study(data, accumulator=Accumulator(bits=bits), fit=True, out=tmp_path / "fit")
    assert fitted.rows[1].psnr_db > wrapped.psnr_db
    # The integers of sums below 2^24 are those of the simulation.
    assert fitted.rows[1].simulated_psnr_db == pytest.approx(fitted.rows[1].psnr_db, abs=0.01)
    with pytest.raises(SettingError, match="plans whose sums fit 18 bits, found None in mine"):
        study(data, accumulator=Accumulator(bits=bits), fit=True, plans={"mine": plan})
    with pytest.raises(SettingError, match="width for sums that fit, found none"):
        study(data, fit=True)
    document = json.loads((tmp_path / "fit" / "study.json").read_text())
    row, sheet = document["rows"][1], document["cost_sheet"]
    assert sheet["row"] == 1
    assert row["line_buffer_bytes"] == sheet["line_buffer_bytes"] > 0
    assert row["frame_bytes"] == sheet["streamed_bytes"]
    assert document["rows"][0]["line_buffer_bytes"] is None
    page = report_page(fitted, (), {})
    assert "Integers and their simulation" in page
    assert "Cost sheet" in page
    assert "frames of 40x40 px" in page


def test_a_profile_sets_the_arithmetic(data: Path) -> None:
    found = study(data, profile=read_profile("isp-shift"))
    said = str(found.protocol["activations"])
    assert "powers of two and a shift, half even" in said
    assert "24 bits" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"execution": "slow"}, "simulated or integer, found 'slow'"),
        ({"execution": "simulated", "accumulator": Accumulator(bits=24)}, "pass --execution"),
        ({"skip_layers": ["tail"]}, "leaves some in float"),
        ({"device": "meta"}, "cannot be used here|expected the CPU"),
    ],
)
def test_bad_settings(data: Path, tmp_path: Path, options: dict, message: str) -> None:
    settings = {"execution": "integer", **options}
    with pytest.raises(SettingError, match=message):
        quantisp.study(
            tiny_net(),
            data / "val",
            weight_bits=[8],
            activation_bits=[8],
            out=tmp_path / "out",
            **settings,
        )
    assert not (tmp_path / "out").exists()


def test_quantize_writes_a_folder_that_info_shows(tmp_path: Path, capsys) -> None:
    out = tmp_path / "net"
    command = "quantize --weight-bits 6 --method rtn --activation-bits 8 --sum-bits 12"
    command += " --profile npu-multiplier"
    app([*command.split(), "--out", str(out), "--json"], standalone_mode=False)
    written = json.loads(capsys.readouterr().out)
    assert written["file"] == str(out)
    network = load_integer_network(out)
    assert network.origin["model"] == "dephasenet-lite"
    assert network.accumulator == Accumulator(bits=32, overflow="wrap")
    model = find_model("dephasenet-lite").model
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert IntegerExecutor(network, model)(x).shape == (1, 3, 32, 32)
    app(["info", str(out), "--json"], standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    assert shown["widest_sum_bits"] <= 32
    assert all(layer["weight_bits"] == 6 for layer in shown["layers"])
    kinds = ("int8", "float32", "float64")
    assert {layer["kernel"].split(" x ")[1] for layer in shown["layers"]} <= set(kinds)
    with pytest.raises(OutputError, match="end it so, or give --activation-bits"):
        app(["quantize", "--weight-bits", "6", "--out", str(out)], standalone_mode=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--activation-bits 8 --overflow wrap --out net", "a width beside --overflow"),
        ("--sum-bits 12 --out n.safetensors", "--activation-bits beside --sum-bits"),
        ("--activation-bits 8 --overflow fit --out net", "width for sums that fit, found none"),
        ("--profile npu-multiplier --out net", "activation bits beside --profile"),
        ("--activation-bits 8 --accumulator-bits 24 --out n.safetensors", "without an ending"),
        ("--activation-bits 8 --profile nobody --out net", "isp-shift, npu-multiplier, found"),
    ],
)
def test_bad_options(tmp_path: Path, monkeypatch, options: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=message):
        app(["quantize", "--weight-bits", "6", *options.split()], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []
