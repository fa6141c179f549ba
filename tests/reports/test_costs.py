"""Quality against cost: the table, the frontier and the knee."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from report_factory import make_row, make_study
from rich.console import Console

from quantisp.records import StudyResult, StudyRow
from quantisp.reports import cost_screen_table, report_page, study_markdown
from quantisp.reports.cost_figure import cost_figure, cost_ticks
from quantisp.reports.costs import cost_points, cost_table, knee, mac_rows

pytestmark = pytest.mark.unit


def costed(row: StudyRow, bits: float, **changes: object) -> StudyRow:
    known = {
        "mean_weight_bits": float(bits),
        "weight_bytes": round(1000 * bits),
        "bops_per_px": 32000.0 * bits,
        "mac_energy_pj": 4.6,
        "mac_area_um2": 11884.0,
    }
    return replace(row, **{**known, **changes})


@pytest.fixture(scope="module")
def mixed() -> StudyResult:
    uniform = [
        costed(make_row(bits, "rtn", "channel", drop, ["a.png"]), bits)
        for bits, drop in ((4, 10.0), (6, 3.0), (8, 0.4))
    ]
    best = costed(
        replace(uniform[0], weight_bits=None, plan="<mean-bits=4>", psnr_db=41.0, drop_db=0.25), 4.5
    )
    half = costed(
        replace(
            uniform[0],
            weight_bits=None,
            weight_format="float16",
            granularity="none",
            psnr_db=41.25,
            drop_db=0.0,
        ),
        16,
    )
    study = make_study(names=["a.png"], rows=uniform, bits=(None,))
    return replace(study, rows=(*uniform, best, half))


def test_rows_come_by_cost_with_the_frontier_and_the_knee(mixed: StudyResult) -> None:
    table = cost_table(mixed)
    assert table is not None
    assert [row[0] for row in table.rows] == [
        "float",
        "4 bits: rtn, per channel *",
        "<mean-bits=4>: rtn, per channel, mixed *",
        "6 bits: rtn, per channel",
        "8 bits: rtn, per channel",
        "float16 *",
    ]
    assert table.knee == 2
    assert table.rows[2][1:4] == ("4.5", "4.5", "144")
    found = knee(mixed)
    assert found is not None
    assert found.plan == "<mean-bits=4>"


def test_no_knee_without_a_bend(mixed: StudyResult) -> None:
    assert knee(replace(mixed, rows=mixed.rows[:2])) is None
    # The last bits gain most.
    bad = [replace(mixed.rows[i], psnr_db=db) for i, db in enumerate((30.0, 30.1, 41.0))]
    assert knee(replace(mixed, rows=tuple(bad))) is None


def test_without_costs_nothing_is_shown(kodak: StudyResult) -> None:
    assert cost_table(kodak) is None
    assert cost_screen_table(kodak) is None
    assert cost_figure(kodak, "png") is None
    assert "Quality against cost" not in report_page(kodak, (), {})


def test_on_the_screen_in_markdown_and_on_the_page(mixed: StudyResult) -> None:
    console = Console(width=120, record=True)
    console.print(cost_screen_table(mixed))
    assert "float16 *" in console.export_text()
    markdown = study_markdown(mixed)
    assert "| **\\<mean-bits=4\\>: rtn, per channel, mixed \\*** | **4.5** |" in markdown
    page = report_page(mixed, (), {})
    assert "Quality against cost" in page
    assert "&lt;mean-bits=4&gt;</strong>: 0.250 dB below float." in page
    assert "<mean-bits" not in page
    for name, *_ in mac_rows():
        assert name in page


def test_the_figure_is_the_same_each_time(mixed: StudyResult) -> None:
    first = cost_figure(mixed, "svg")
    assert first is not None
    assert first == cost_figure(mixed, "svg")
    assert {point.group for point in cost_points(mixed)} == {
        "rtn, per channel",
        "rtn, per channel, mixed",
        "formats",
    }


@pytest.mark.parametrize("ratio", [1.02, 1.3, 1.9, 2.1, 3.0, 7.0, 20.0, 80.0, 2000.0])
@pytest.mark.parametrize("lowest", [1.0, 1449.0, 7300.0])
def test_costs_have_labels_on_their_axis_with_room_for_each(lowest: float, ratio: float):
    costs = (lowest, lowest * ratio)
    margin = ratio**0.14
    low, high = lowest / margin, lowest * ratio * margin
    ticks = [x for x in cost_ticks(costs).tick_values(low, high) if low <= x <= high]
    assert len(ticks) >= 2
    gaps = [math.log(b / a) / math.log(high / low) for a, b in itertools.pairwise(ticks)]
    # Of a panel of 3.5 in.
    assert min(gaps) * 3.5 > 0.45
