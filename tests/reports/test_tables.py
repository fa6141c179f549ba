"""The tables say what the records hold, in the room there is."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from report_factory import make_row, make_study
from rich.console import Console
from rich.table import Table

from quantisp.records import EvaluationResult, StudyResult
from quantisp.reports import evaluation_table, recommendation_lines, study_markdown, study_table
from quantisp.reports.series import decimals, study_grid, study_series

pytestmark = pytest.mark.unit


def printed(table: Table, columns: int = 100) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=columns).print(table)
    return file.getvalue().splitlines()


def words(lines: list[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


def every_cell(result: StudyResult) -> set[str]:
    grid = study_grid(result)
    return {
        cell for group in grid.groups for bits in grid.widths for cell in group.cells_at(bits)
    } - {""}


def row_of(lines: list[str], bits: str) -> list[str]:
    return next(line.split() for line in lines if line.split()[:1] == [bits])


def test_kodak_at_100_columns_is_one_band_with_every_number(kodak: StudyResult):
    lines = printed(study_table(kodak))
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert len([line for line in lines if line.split()[:1] == ["9"]]) == 1
    rtn = next(row for row in kodak.rows if row.weight_bits == 9)
    found = row_of(lines, "9")
    assert found[:3] == ["9", "42.819", "0.098"]
    assert found[3:8] == [
        decimals(rtn.psnr_db),
        decimals(rtn.drop_db),
        decimals(rtn.worst_image_drop_db),
        decimals(rtn.worst_tile_drop_db),
        decimals(rtn.psnr_to_float_db or math.nan, 2),
    ]
    assert row_of(lines, "float") == ["float", "42.917", "41.250", "41.250"]


@pytest.mark.parametrize("columns", [60, 80])
def test_what_does_not_fit_side_by_side_is_stacked(kodak: StudyResult, columns: int):
    lines = printed(study_table(kodak, columns=columns), columns)
    assert every_cell(kodak) <= words(lines)
    assert len([line for line in lines if line.split()[:1] == ["9"]]) > 1


def test_squeezing_without_stacking_would_lose_digits(kodak: StudyResult):
    """The twin: the table for 100 columns does not survive 60."""
    assert every_cell(kodak) <= words(printed(study_table(kodak)))
    assert not every_cell(kodak) <= words(printed(study_table(kodak), 60))


def test_the_paper_stands_beside_kodak_only(kodak: StudyResult, small: StudyResult):
    for text in ("\n".join(printed(study_table(kodak))), study_markdown(kodak)):
        assert "the paper" in text
        assert "42.485" in text
    for text in ("\n".join(printed(study_table(small))), study_markdown(small)):
        assert "paper" not in text
        assert "42.485" not in text


def test_an_equal_output_and_a_gain_are_shown(small: StudyResult):
    found = row_of(printed(study_table(small)), "8")
    assert found == ["8", "41.252", "-0.002", "-0.003", "-0.005", "equal"]


def test_series_are_told_apart_by_activation_bits_and_sorted_by_width():
    rows = [make_row(bits, "rtn", "tensor", 0.1, ["a"]) for bits in (8, 4)]
    wide = replace(rows[0], activation_bits=12)
    result = make_study(names=["a"], rows=[*rows, wide], bits=(None, 8))
    weights_only, both = study_series(result)
    assert [row.weight_bits for row in weights_only.rows] == [4, 8]
    assert (weights_only.label, both.label) == (
        "rtn, per tensor",
        "rtn, per tensor, 12-bit activations",
    )
    assert (weights_only.chosen_bits, both.chosen_bits) == (None, 8)
    assert study_grid(result).groups[1].cells_at(4) == ("",) * 5


def test_recommendations_in_plain_words(
    kodak: StudyResult, small: StudyResult, hostile: StudyResult
):
    assert recommendation_lines(kodak) == [
        "rtn, per tensor: 9 bits are the fewest within 0.05 dB of float",
        "gptq, per channel: 8 bits are the fewest within 0.05 dB of float",
    ]
    assert recommendation_lines(small) == [
        "rtn, per tensor: 8 bits are within 0.05 dB of float; fewer were not studied"
    ]
    (line,) = recommendation_lines(hostile)
    assert "no width that was studied (4 to 6 bits) is enough" in line


def test_markdown_tables_have_one_number_of_columns(kodak: StudyResult, hostile: StudyResult):
    for result in (kodak, hostile):
        tables = [line for line in study_markdown(result).splitlines() if line.startswith("|")]
        assert len({line.count("|") - line.count(r"\|") for line in tables}) == 1
    assert "| **9** | 42.819 | 0.098 | 41.2" in study_markdown(kodak)
    assert r"\<i\>\|\$m\$, per tensor" in study_markdown(hostile)


def test_evaluation_shows_each_picture_and_the_mean(evaluation: EvaluationResult):
    lines = printed(evaluation_table(evaluation), 80)
    assert row_of(lines, "[bold]a.png")[1:] == ["40.000", "40.500", "0.9800"]
    assert row_of(lines, "b.png")[1:] == ["∞", "∞", "1.0000"]
    assert row_of(lines, "mean")[1:] == ["∞", "∞", "0.9900"]


def test_decimals_never_show_a_negative_zero():
    assert [decimals(value) for value in (-0.0004, 0.0, -0.0006, -math.inf)] == [
        "0.000",
        "0.000",
        "-0.001",
        "-∞",
    ]
