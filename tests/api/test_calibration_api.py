"""Studies and evaluations with methods that look at pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from api_kit import KODAK_CFA, tiny_net, write_pictures
from PIL import Image

import quantisp
from quantisp.api import evaluate, study_with_crops
from quantisp.errors import ImageError, OutputError, SettingError
from quantisp.evaluation import StudyProgress
from quantisp.quantization import Plan, quantizing
from quantisp.reports import report_page

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("calibration") / "pictures", count=2, px=104)


def studied(data: Path, out: Path | None = None, **options: Any) -> dict[str, float]:
    """The PSNR against float of each method at 3 bits per channel."""
    result = quantisp.study(
        tiny_net(), data / "val", weight_bits=[3], granularities=["channel"], out=out, **options
    )
    return {row.method: row.psnr_to_float_db or 0.0 for row in result.rows}


def test_methods_that_look_at_pictures_come_nearer_to_float(data: Path, calibration: Path) -> None:
    found = studied(data, methods=["rtn", "mse", "gptq", "auto"], calibration=calibration)
    assert found["rtn"] + 1.0 < found["gptq"] < found["auto"] + 0.5
    assert found["mse"] < found["auto"]


def test_it_works_out_of_the_box_and_the_same_each_time(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        studied(data, out=tmp_path / name, methods=["gptq"])
    for file in ("study.json", "study.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_progress_tells_which_layer_is_rounded(
    data: Path, tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[StudyProgress] = []
    walks: list[str] = []
    walk = quantizing.walk

    def counted(*arguments: Any, **options: Any) -> Any:
        walks.append("")
        return walk(*arguments, **options)

    monkeypatch.setattr(quantizing, "walk", counted)
    study_with_crops(
        tiny_net(),
        data / "val",
        weight_bits=[4],
        methods=["gptq"],
        granularities=["channel"],
        calibration=calibration,
        out=tmp_path / "out",
        on_progress=told.append,
    )
    assert any("4 bits, rounding: 100%" in progress.doing for progress in told)
    # The crops show the network that the table measured: it is not rounded again.
    assert len(walks) == 1


def test_pictures_that_are_measured_are_refused_whatever_their_names(
    data: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "another name.png"
    Image.open(data / "train" / "picture0.png").save(copied)
    out = tmp_path / "out"
    with pytest.raises(ImageError, match="is also measured on, as picture0: take it out of one"):
        quantisp.study(tiny_net(), data / "train", methods=["gptq"], calibration=copied, out=out)
    assert not out.exists()


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("deep", ["calibration", "measured"])
def test_nor_with_sixteen_bits(data: Path, tmp_path: Path, factor: int, deep: str) -> None:
    """Crops are of eight bits, and would be the very pixels that are measured on."""
    plain = tmp_path / "plain.png"
    Image.open(data / "train" / "picture0.png").save(plain)
    samples = np.asarray(Image.open(plain)).astype(np.uint16) * factor
    tifffile.imwrite(tmp_path / "deep.tif", samples, photometric="rgb")
    pair = [plain, tmp_path / "deep.tif"]
    images, calibration = pair if deep == "calibration" else reversed(pair)
    with pytest.raises(ImageError, match="is also measured on"):
        quantisp.study(tiny_net(), images, methods=["gptq"], calibration=calibration)


def test_what_auto_decided_is_in_the_result(
    data: Path, tmp_path: Path, calibration: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of a study that was done before; it is told once, when it is decided."""
    caplog.set_level("INFO")
    options: dict[str, Any] = {
        "weight_bits": [4],
        "methods": ["rtn:tensor", "auto:channel"],
        "calibration": calibration,
        "out": tmp_path / "out",
    }
    first = quantisp.study(tiny_net(), data / "val", **options)
    plain, best = first.rows
    assert plain.decisions == ()
    assert best.decisions[0].startswith("rtn: mean squared error ")
    assert any(line.startswith("equalization: ") for line in best.decisions)
    assert json.loads(first.to_json())["rows"][1]["decisions"] == list(best.decisions)
    assert "decisions" not in first.to_csv()
    assert quantisp.study(tiny_net(), data / "val", **options).to_json() == first.to_json()
    assert caplog.messages.count(f"4 bits: {best.decisions[0]}") == 1
    page = report_page(first, [], {})
    assert page.count("mean squared error") >= 2
    assert "4 bits, auto per channel" in page


def test_other_calibration_is_another_study(data: Path, tmp_path: Path, calibration: Path) -> None:
    studied(data, out=tmp_path / "out", methods=["gptq"], calibration=calibration)
    with pytest.raises(OutputError, match="not the same calibration"):
        studied(data, out=tmp_path / "out", methods=["gptq"])


def test_a_seed_chooses_the_crops(data: Path, tmp_path: Path, calibration: Path) -> None:
    options = {"methods": ["gptq"], "calibration": calibration}
    found = [
        studied(data, out=tmp_path / name, **options, **seed)
        for name, seed in {"default": {}, "0": {"seed": 0}, "1": {"seed": 1}}.items()
    ]
    assert found[0] == found[1] != found[2]
    results = [json.loads((tmp_path / name / "study.json").read_text()) for name in "01"]
    assert [result["protocol"]["seed"] for result in results] == [0, 1]
    # The figures of one seed do not become those of another.
    with pytest.raises(OutputError, match="not the same seed"):
        studied(data, out=tmp_path / "0", **options, seed=1)
    plan = Plan.uniform(weight_bits=3, method="gptq", granularity="channel")
    given = {"plan": plan, "calibration": calibration}
    psnr = [evaluate(tiny_net(), data / "val", **given, seed=s).psnr_db for s in (0, 0, 1)]
    assert psnr[0] == psnr[1] != psnr[2]


def test_what_is_no_seed_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingError, match=r"from 0 to 2\^31 - 1, found -1: correct --seed"):
        studied(data, out=out, methods=["gptq"], seed=-1)
    assert not out.exists()


def test_calibration_that_nothing_looks_at_is_refused(data: Path, calibration: Path) -> None:
    with pytest.raises(SettingError, match=r"for the methods \(rtn\) do not look at it"):
        studied(data, calibration=calibration)
    with pytest.raises(SettingError, match="expected a plan beside calibration pictures"):
        evaluate(tiny_net(), data / "val", calibration=calibration)


def test_an_evaluation_gives_the_figures_of_the_study(data: Path, calibration: Path) -> None:
    plan = Plan.uniform(weight_bits=3, method="gptq", granularity="channel")
    found = evaluate(tiny_net(), data / "val", plan=plan, calibration=calibration)
    result = quantisp.study(
        tiny_net(),
        data / "val",
        weight_bits=[3],
        methods=["gptq"],
        granularities=["channel"],
        calibration=calibration,
    )
    assert found.psnr_db == pytest.approx(result.rows[0].psnr_db, abs=1e-6)


def test_quantize_takes_mosaics() -> None:
    net = tiny_net()
    mosaics = [
        quantisp.mosaic(torch.rand(1, 3, 48, 48), KODAK_CFA),
        quantisp.mosaic(torch.rand(1, 3, 48, 48), KODAK_CFA),
    ]
    quantized = quantisp.quantize(net, Plan.uniform(weight_bits=4, method="auto"), mosaics)
    assert quantized(mosaics[0]).shape == (1, 3, 48, 48)
    assert quantized.decisions[0].startswith("rtn: ")
