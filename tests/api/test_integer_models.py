"""Folders of integer networks as models: measured, tiled, threaded, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from api_kit import BUILDERS, KODAK_CFA, tiny_net, write_pictures

from quantisp.api import evaluate, find_model, study
from quantisp.api_costs import cost_sheet
from quantisp.api_demosaic import DemosaicSettings, demosaic_files
from quantisp.api_integers import field_of
from quantisp.api_quantize import quantize_to_file
from quantisp.cfa.raw import write_dng
from quantisp.cfa.raw_image import RawImage
from quantisp.cli.main import app
from quantisp.errors import ModelError, SettingError
from quantisp.inference import Interface, receptive_field
from quantisp.models import Provenance, model_sha256, write_model_file, zoo
from quantisp.quantization import Plan
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    load_integer_network,
    save_integer_network,
    worst_accumulators,
)

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("tiny_presets")]

PROVENANCE = Provenance(
    domain="srgb", command="train", data="", date="", revision="", validation_psnr_db=""
)
W8A8 = Plan.uniform(weight_bits=8, activation_bits=8, method="mse", granularity="channel")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    write_model_file(path, tiny_net(), preset="tiny", pattern=KODAK_CFA, provenance=PROVENANCE)
    return path


@pytest.fixture(scope="module")
def folder(model: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "BUILDERS", BUILDERS)
        quantize_to_file(model, W8A8, model.parent / "w8a8", command="quantisp")
    return model.parent / "w8a8"


def test_a_folder_is_a_model(model: Path, folder: Path, tmp_path: Path) -> None:
    found = find_model(folder)
    assert isinstance(found.model, IntegerExecutor)
    assert (found.name, found.pattern) == ("w8a8", KODAK_CFA)
    assert found.provenance is not None
    assert found.provenance.domain == "srgb"
    assert found.float_sha256 == model_sha256(tiny_net())
    # Sizes that are no whole folds are lengthened as the network itself does it.
    x = torch.rand(1, 1, 22, 29, generator=torch.Generator().manual_seed(3))
    wanted = IntegerExecutor(load_integer_network(folder), tiny_net())(x)
    assert torch.equal(found.model(x), wanted)
    assert Plan.from_json((folder / "plan.json").read_text()) == W8A8
    other = tmp_path / "w4a8"
    plan = replace(W8A8, default=replace(W8A8.default, weight_bits=4))
    quantize_to_file(model, plan, other, command="quantisp")
    digests = {model_sha256(find_model(path).model) for path in (folder, other)}
    assert len(digests) == 2
    assert model_sha256(find_model(folder / "network.json").model) in digests


def test_it_is_measured_as_a_study_in_integers_measures_it(folder: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", count=1, px=40)
    measured = evaluate(folder, pictures)
    found = study(
        tiny_net(),
        pictures,
        weight_bits=[8],
        activation_bits=[8],
        methods=["mse"],
        granularities=["channel"],
        execution="integer",
    )
    # The input's ten bits are part of the network.
    assert found.rows[0].psnr_db == pytest.approx(measured.psnr_db, abs=1e-6)


def test_its_receptive_field_is_the_float_network_s(folder: Path) -> None:
    interface = Interface.of_mosaic(KODAK_CFA)
    found = field_of(find_model(folder).model, interface)
    wanted = receptive_field(tiny_net(), interface)
    assert found is not None
    assert wanted is not None
    assert (found.above_px, found.left_px) == (wanted.above_px, wanted.left_px)
    assert (found.below_px, found.right_px) == (wanted.below_px, wanted.right_px)
    assert wanted.stride_px % found.stride_px == 0


def test_neither_tiles_nor_threads_change_a_bit(folder: Path, tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(64, 1023, (150, 118), np.uint16)
    raw = RawImage(codes=codes, pattern=KODAK_CFA, black=(64.0,) * 16, white=1023.0, bits=10)
    write_dng(tmp_path / "a.dng", raw)
    made = []
    for tile, threads in ((1 << 20, 1), (64, 1), (50, 2)):
        torch.set_num_threads(threads)
        (found,) = demosaic_files(
            [tmp_path / "a.dng"],
            tmp_path / f"{tile}-{threads}",
            model=folder,
            settings=DemosaicSettings(tile_px=tile),
        )
        assert found.model == "w8a8"
        made.append(found.path.read_bytes())
    assert made[0] == made[1] == made[2]


def test_what_a_folder_is_not_for(folder: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", count=1, px=40)
    with pytest.raises(ModelError, match="a float network to study, w8a8 is quantized already"):
        study(folder, pictures)
    with pytest.raises(ModelError, match="beside a plan, w8a8 is quantized already"):
        evaluate(folder, pictures, plan=W8A8)
    with pytest.raises(ModelError, match="to quantize, w8a8 is quantized already"):
        quantize_to_file(folder, W8A8, tmp_path / "again", command="quantisp")
    with pytest.raises(ModelError, match="expected no weights beside"):
        find_model(folder, folder.parent / "tiny.safetensors")
    with pytest.raises(SettingError, match="beside a plan, w8a8 is quantized already"):
        cost_sheet(folder, plan=W8A8)
    network = load_integer_network(folder)
    save_integer_network(tmp_path / "old", replace(network, origin={"model": "tiny"}))
    with pytest.raises(ModelError, match="that says what it was made of"):
        find_model(tmp_path / "old")
    own = {**network.origin, "preset": "package.module:factory"}
    save_integer_network(tmp_path / "own", replace(network, origin=own))
    with pytest.raises(ModelError, match="lengthens its input in its own way"):
        find_model(tmp_path / "own")


def test_commands_take_it(folder: Path, tmp_path: Path, capsys) -> None:
    pictures = write_pictures(tmp_path / "pictures", count=1, px=40)
    app(
        ["evaluate", "--model", str(folder), "--images", str(pictures), "--json"],
        standalone_mode=False,
    )
    assert json.loads(capsys.readouterr().out)["model"] == "w8a8"
    app(["info", str(folder), "--cost", "--width", "100", "--json"], standalone_mode=False)
    sheet = json.loads(capsys.readouterr().out)
    assert (sheet["height"], sheet["width"]) == (3000, 100)
    assert sheet["weight_bytes"] == sum(t["weight_bytes"] for t in sheet["tensors"])
    app(["info", str(folder), "--cost"], standalone_mode=False)
    assert "line buffers" in capsys.readouterr().out


def test_sums_that_fit(model: Path, folder: Path, tmp_path: Path) -> None:
    free = load_integer_network(folder)
    bits = max(found.bits for found in worst_accumulators(free)) - 2
    made = quantize_to_file(
        model,
        W8A8,
        tmp_path / "fit",
        accumulator=Accumulator(bits=bits),
        fit=True,
        command="quantisp",
    )
    network = load_integer_network(made.path)
    assert network.accumulator == Accumulator(bits=bits)
    assert all(found.bits <= bits for found in worst_accumulators(network))
    # What was chosen is a plan like any other.
    plan = Plan.from_json((made.path / "plan.json").read_text())
    assert plan.activations.accumulator_bits == bits
    again = quantize_to_file(model, plan, tmp_path / "again", command="quantisp")
    assert load_integer_network(again.path).accumulator == Accumulator(bits=bits)
    digests = {model_sha256(find_model(path).model) for path in (made.path, again.path)}
    assert len(digests) == 1
