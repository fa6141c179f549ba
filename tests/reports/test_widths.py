"""Weight by activation widths: the table, its frontier, and the heat map."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_factory import make_row, make_study

from quantisp.records import StudyResult
from quantisp.reports import (
    frontier_lines,
    psnr_figure,
    study_markdown,
    width_figure,
    width_tables,
    width_text,
    write_report,
)

pytestmark = pytest.mark.unit

DROPS = {
    (4, 8): 1.4,
    (4, 12): 1.2,
    (4, None): 1.1,
    (6, 8): 0.5,
    (6, 12): 0.04,
    (6, None): 0.03,
    (8, 8): 0.45,
    (8, 12): 0.009,
    (8, None): -0.001,
}


@pytest.fixture
def result() -> StudyResult:
    rows = [
        replace(make_row(weight, "auto", "channel", drop, ["a.png"]), activation_bits=activation)
        for (weight, activation), drop in DROPS.items()
    ]
    return make_study(names=["a.png"], rows=rows, bits=(8, 6, None))


def test_the_frontier_has_what_no_cheaper_pair_beats(result: StudyResult):
    (table,) = width_tables(result)
    assert table.title == "auto, per channel"
    assert table.weight_bits == (4, 6, 8)
    assert table.activation_bits == (8, 12, None)
    # 32, 48 (twice, of which W6A8 is the better), 64, 72, 96 bit operations.
    assert [str(pair) for pair in table.frontier()] == ["W4A8", "W6A8", "W8A8", "W6A12", "W8A12"]
    assert [pair.bops for pair in table.frontier()] == [32, 48, 64, 72, 96]


def test_the_cheapest_pair_within_each_drop_is_told(result: StudyResult):
    (table,) = width_tables(result)
    assert frontier_lines(table) == [
        "cheapest within 0.01 dB: W8A12, 96 bit operations a multiplication (0.009 dB)",
        "cheapest within 0.05 dB: W6A12, 72 bit operations a multiplication (0.040 dB)",
        "cheapest within 0.5 dB: W6A8, 48 bit operations a multiplication (0.500 dB)",
    ]
    assert str(table.cheapest(0.5)) == "W6A8"
    assert table.cheapest(0.001) is None


def test_the_table_is_text_and_markdown(result: StudyResult):
    text = width_text(width_tables(result))
    assert "W6     0.500   0.040   0.030" in text
    assert "within 0.05 dB: W6A12" in text
    assert "| 6 | 0.500 | 0.040 | 0.030 |" in study_markdown(result)


def test_the_report_has_a_heat_map(result: StudyResult, tmp_path: Path):
    names = {path.name for path in write_report(tmp_path, result, [], {})}
    assert {"widths.svg", "widths.png"} <= names
    page = (tmp_path / "report.html").read_text()
    assert "Weights and activations" in page
    assert "within 0.05 dB: W6A12" in page
    (table,) = width_tables(result)
    pixels = np.asarray(Image.open(io.BytesIO(width_figure([table], "png"))).convert("RGB"))
    # Many colours, from pale to dark.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 8
    assert width_figure([table], "svg") == width_figure([table], "svg")


def test_a_study_of_weights_alone_has_none(small: StudyResult, tmp_path: Path):
    assert width_tables(small) == ()
    names = {path.name for path in write_report(tmp_path, small, [], {})}
    assert not {"widths.svg", "widths.png"} & names


def test_curves_over_weight_bits_show_the_widest_activations(result: StudyResult):
    floats = make_study(
        names=["a.png"], rows=[r for r in result.rows if r.activation_bits is None], bits=(None,)
    )
    assert psnr_figure(result, "svg") == psnr_figure(floats, "svg")


def test_less_loss_in_integers_than_in_float_is_explained():
    rows = [
        replace(make_row(6, "rtn", "channel", drop, ["a.png"]), activation_bits=activation)
        for activation, drop in ((8, 2.8), (None, 5.6))
    ]
    (table,) = width_tables(make_study(names=["a.png"], rows=rows, bits=(8, None)))
    assert frontier_lines(table)[0] == "no pair that was studied is within 1 dB"
    assert "corrects biases" in frontier_lines(table)[1]
