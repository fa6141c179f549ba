"""A study of raw files: the float network's output stands for the truth, and the results say so."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from api_kit import KODAK_CFA, tiny_net, write_pictures

from quantisp.api import evaluate, study, study_with_crops
from quantisp.api_captures import survey_captures
from quantisp.api_simulate import simulate
from quantisp.cfa import CFAPattern, mosaic
from quantisp.cfa.raw import read_raw, write_raw
from quantisp.cfa.simulation import SensorSettings
from quantisp.errors import ImageError, ModelError, SettingError
from quantisp.evaluation import capture_samples
from quantisp.models import LoadedModel
from quantisp.reports import captures_table, write_report

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captures")
    write_pictures(folder / "photos", count=2, px=48)
    simulate([folder / "photos"], SensorSettings(pattern=KODAK_CFA), folder / "raw")
    return folder / "raw"


def test_rows_are_against_the_float_networks_output(captures: Path, tmp_path: Path):
    result = study(
        tiny_net(), captures, weight_bits=[4, 8], granularities=["channel"], out=tmp_path / "out"
    )
    few, many = result.rows
    assert few.psnr_to_float_db is not None
    assert many.psnr_to_float_db is not None
    assert 10.0 < few.psnr_to_float_db < many.psnr_to_float_db
    assert set(few.images) == {"picture0", "picture1"}
    assert all(few.images[name] < many.images[name] for name in few.images)
    assert result.recommendation == ()
    assert not result.has_truth


def test_the_json_and_the_csv_claim_no_drop(captures: Path, tmp_path: Path):
    study(tiny_net(), captures, weight_bits=[4], granularities=["channel"], out=tmp_path / "out")
    said = json.loads((tmp_path / "out" / "study.json").read_text())
    assert said["protocol"]["reference"].startswith("the float network's output, for nobody knows")
    assert said["protocol"]["degradation"] == "raw files"
    assert said["recommendation"] is None
    (row,) = said["rows"]
    for figure in ("psnr_db", "drop_db", "worst_image_drop_db", "worst_tile_drop_db", "ssim"):
        assert row[figure] is None
    assert said["float"]["psnr_db"] is None
    assert row["psnr_to_float_db"] > 10.0
    (line,) = csv.DictReader((tmp_path / "out" / "study.csv").read_text().splitlines())
    assert line["drop_db"] == line["psnr_db"] == ""
    assert float(line["psnr_to_float_db"]) == row["psnr_to_float_db"]


def test_the_report_and_the_table_say_so(captures: Path, tmp_path: Path):
    outcome = study_with_crops(
        tiny_net(),
        captures,
        weight_bits=[4, 6],
        granularities=["channel"],
        out=tmp_path / "out",
    )
    written = write_report(tmp_path / "out", outcome.result, outcome.crops, {"command": "<b>"})
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Raw files have no ground truth" in page
    assert "&lt;b&gt;" in page
    assert "no ground truth" in (tmp_path / "out" / "study.md").read_text()
    assert [path.suffix for path in written].count(".png") == 2
    assert "to float" in str(captures_table(outcome.result).columns[3].header)
    assert [panel.label for panel in outcome.crops[0].panels] == [
        "4 bits, rtn",
        "6 bits, rtn",
        "float",
    ]
    assert outcome.crops[0].truth == outcome.crops[0].panels[-1].rgb


def test_a_killed_study_of_raw_files_goes_on(captures: Path, tmp_path: Path):
    given = {"weight_bits": [4, 6], "granularities": ["channel"], "out": tmp_path / "out"}
    first = study_with_crops(tiny_net(), captures, **given)
    content = (tmp_path / "out" / "study.json").read_bytes()
    again = study_with_crops(tiny_net(), captures, **given)
    assert (first.measured_jobs, again.measured_jobs) == (6, 0)
    assert (tmp_path / "out" / "study.json").read_bytes() == content
    # A capture that has changed is another study.
    path = captures.parent / "changed.dng"
    raw = read_raw(captures / "picture0.dng")
    write_raw(path, replace(raw, codes=np.minimum(raw.codes + 1, 1023).astype(np.uint16)))
    with pytest.raises(Exception, match="another"):
        study(tiny_net(), path, **given)


def test_another_phase_loses_a_few_rows_and_is_never_taken_for_the_networks(tmp_path: Path):
    pattern = KODAK_CFA.crop(top=1, left=2)
    write_pictures(tmp_path / "photos", count=1, px=48)
    simulate([tmp_path / "photos"], SensorSettings(pattern=pattern), tmp_path / "raw")
    found = LoadedModel(name="tiny", model=tiny_net(), pattern=KODAK_CFA, provenance=None)
    from quantisp.data import ImageFile

    file = ImageFile(name="one", path=tmp_path / "raw" / "picture0.dng")
    (picture,) = survey_captures([file], found, KODAK_CFA)
    assert (picture.height, picture.width) == (45, 46)
    assert picture.capture is not None
    simulate([tmp_path / "photos"], SensorSettings(pattern=KODAK_CFA), tmp_path / "same")
    samples = capture_samples(picture.capture)
    same = capture_samples(
        replace(picture.capture, path=tmp_path / "same" / "picture0.dng", top=0, left=0)
    )
    # The same scene, whose samples stand under other filters; smooth pictures differ little.
    assert float((samples - same[:, :, 3:, 2:]).abs().median()) < 0.2
    rgb = torch.full((1, 3, 45, 46), 0.5)
    assert mosaic(rgb, KODAK_CFA).shape == samples.shape


def test_pictures_beside_raw_files_are_what_a_folder_stands_for(captures: Path, tmp_path: Path):
    photos = write_pictures(tmp_path / "photos", count=1, px=48)
    (photos / "one.dng").write_bytes((captures / "picture0.dng").read_bytes())
    result = study(tiny_net(), photos, weight_bits=[4], granularities=["channel"])
    assert result.has_truth
    assert set(result.float.images) == {"picture0"}
    assert not study(tiny_net(), photos / "one.dng", weight_bits=[4]).has_truth


def test_mistakes_are_said(captures: Path, tmp_path: Path):
    photos = write_pictures(tmp_path / "photos", count=1, px=48)
    with pytest.raises(SettingError, match="pictures or raw files in --images, found both"):
        study(tiny_net(), [captures, photos], weight_bits=[4])
    with pytest.raises(SettingError, match="no degradation beside raw files"):
        study(tiny_net(), captures, degradation="mosaic", weight_bits=[4])
    bayer = tiny_net()
    bayer.pattern = CFAPattern.named("bayer")
    with pytest.raises(ModelError, match=r"picture0\.dng: expected a model for rgbw-kodak"):
        study(bayer, captures, weight_bits=[4])
    headless = tmp_path / "one.raw"
    headless.write_bytes(bytes(64))
    with pytest.raises((SettingError, ImageError), match=r"one\.raw"):
        study(tiny_net(), headless, weight_bits=[4])
    with pytest.raises(ImageError):
        evaluate(tiny_net(), captures)
