"""The study as one HTML file that needs nothing else: no script, no font, no address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import cast

from quantisp.records import Crop, StudyResult, StudyRow
from quantisp.reports import paper
from quantisp.reports.cost_figure import cost_figure
from quantisp.reports.cost_sheet import (
    SHEET_HEADINGS,
    SHEET_NOTE,
    sheet_rows,
    sheet_subject,
    sheet_totals,
)
from quantisp.reports.costs import COST_NOTE, MAC_HEADINGS, cost_table, knee, mac_rows
from quantisp.reports.coverage import coverage_lines
from quantisp.reports.crops import ERROR_LIMIT, crop_figure, enlargement
from quantisp.reports.figures import psnr_figure
from quantisp.reports.heatmap import width_figure
from quantisp.reports.integers import GAP_HEADINGS, GAP_NOTE, gap_rows
from quantisp.reports.page_parts import definitions, figure, number, section
from quantisp.reports.page_style import CSS
from quantisp.reports.page_table import image_table, layer_table, plain_table, study_table
from quantisp.reports.series import Series, decimals, study_series, widest_series
from quantisp.reports.tables import recommendation_lines
from quantisp.reports.widths import frontier_lines, width_tables

__all__ = ["report_page"]


def report_page(result: StudyResult, crops: Sequence[Crop], run: Mapping[str, str]) -> str:
    """The answer first, then the figure, the table, the crops, and how it was measured.

    Args:
        result: the study.
        crops: places to show, in this order; none leaves the section out.
        run: what the run was, such as versions, machine, time and command, for people to read.
    """
    title = escape(f"How many bits does {result.model} need?")
    body = [
        f"<h1>{title}</h1>",
        *_answer(result),
        _psnr_figure(result),
        *_width_section(result),
        section("Every width", study_table(result)),
        section("Integers and their simulation", _gap(result)) if gap_rows(result) else "",
        section("Quality against cost", *_costs(result)) if cost_table(result) else "",
        section("Cost sheet", *_cost_sheet(result)) if result.cost_sheet else "",
        section("What it looks like", *_crop_figures(result, crops)) if crops else "",
        section("Each picture", *(image_table(result, one) for one in study_series(result))),
        section("What was quantized", *_coverage(result)) if result.coverage else "",
        section("What was decided", *_decisions(result)) if _decided(result) else "",
        section("How it was measured", definitions(_protocol(result))),
        section("The run", definitions(run)) if run else "",
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{CSS}
</style>
</head>
<body>
<main>
{chr(10).join(part for part in body if part)}
</main>
</body>
</html>
"""


def _answer(result: StudyResult) -> Iterable[str]:
    studied = [one for one in widest_series(result) if one.recommendation is not None]
    studied.sort(key=lambda one: (one.chosen_bits is None, one.chosen_bits or 0))
    sentences = [_verdict(one, stress=index == 0) for index, one in enumerate(studied)]
    if result.is_kodak and studied and studied[0].recommendation is not None:
        bits = paper.paper_bits_within(studied[0].recommendation.within_db)
        sentences.append(f"The paper's network needed {'more than 16' if bits is None else bits}.")
    if sentences:
        yield f'<p class="answer">{" ".join(sentences)}</p>'
    count = len(result.float.images)
    yield (
        f'<p class="facts">{escape(result.model)} on {escape(result.task)}, '
        f"{count} picture{'' if count == 1 else 's'}, float "
        f"{number(decimals(result.float.psnr_db))} dB, SSIM {decimals(result.float.ssim, 4)}.</p>"
    )


def _verdict(series: Series, *, stress: bool) -> str:
    recommendation = series.recommendation
    if recommendation is None:
        return ""
    within = f"{recommendation.within_db:g} dB"
    label = escape(series.label)
    if recommendation.weight_bits is None:
        most = series.rows[-1].width
        return f"With {label}, even {most} bits are not within {within} of float."
    bits = recommendation.weight_bits
    limit = " (fewer were not studied)" if bits == series.rows[0].width else ""
    if stress:
        return (
            f"<strong>{bits} weight bits</strong>{limit} are enough to stay within {within} of "
            f"float, with {label}."
        )
    return f"With {label} it takes {bits}{limit}."


def _psnr_figure(result: StudyResult) -> str:
    caption = (
        "Left, mean PSNR against weight bits; right, what each width costs, on a logarithmic axis. "
        "A ring marks the fewest bits that are enough there and at every larger width."
    )
    alt = (
        "Two charts over weight bits: PSNR, and its drop against float; the table below has the "
        f"numbers. {'; '.join(recommendation_lines(result))}"
    )
    return figure("image/svg+xml", psnr_figure(result, "svg"), alt, caption)


def _costs(result: StudyResult) -> Iterable[str]:
    table, drawn, best = cost_table(result), cost_figure(result, "svg"), knee(result)
    if table is None or drawn is None:
        return
    if best is not None:
        yield (
            f"<p>The knee of PSNR against bit operations is at <strong>"
            f"{escape(best.setting.label)}</strong>: {number(decimals(best.drop_db))} dB below "
            "float.</p>"
        )
    caption = (
        "Left, PSNR against bit operations for an output pixel; right, against the size of the "
        "weights, both on logarithmic axes."
    )
    yield figure("image/svg+xml", drawn, "Two charts; the table below has the numbers.", caption)
    yield plain_table(table.headings, table.rows, f"{COST_NOTE}.", chosen=table.knee)
    note = (
        "Estimates for 45 nm between and beyond the points that Horowitz published (ISSCC 2014): "
        "8-bit and 32-bit integers, float16 and float32; sums of 576 products."
    )
    yield plain_table(MAC_HEADINGS, mac_rows(), note)


def _gap(result: StudyResult) -> str:
    return plain_table(GAP_HEADINGS, gap_rows(result), f"{GAP_NOTE}.")


def _cost_sheet(result: StudyResult) -> Iterable[str]:
    sheet = result.cost_sheet
    if sheet is not None:
        yield f"<p>{escape(sheet_subject(result))}</p>"
        yield definitions(sheet_totals(sheet))
        table = plain_table(SHEET_HEADINGS, sheet_rows(sheet), f"{SHEET_NOTE}.")
        yield f"<details>\n<summary>Each tensor</summary>\n{table}\n</details>"


def _width_section(result: StudyResult) -> Iterable[str]:
    tables = width_tables(result)
    if not tables:
        return
    caption = (
        "What each pair of weight and activation bits costs in dB. A frame marks the frontier: "
        "pairs that lose less than every pair of as many bit operations (weight bits times "
        "activation bits) or fewer."
    )
    lists = [
        f"<p>{escape(table.title)}:</p>\n<ul>\n"
        + "\n".join(f"<li>{number(escape(line))}</li>" for line in frontier_lines(table))
        + "\n</ul>"
        for table in tables
    ]
    alt = "; ".join(f"{table.title}: {', '.join(frontier_lines(table))}" for table in tables)
    drawn = figure("image/svg+xml", width_figure(tables, "svg"), alt, caption)
    yield section("Weights and activations", drawn, *lists)


def _crop_figures(result: StudyResult, crops: Sequence[Crop]) -> Iterable[str]:
    # Crops show the first way of rounding that was studied.
    rounding = next((series.label for series in study_series(result)), "")
    return (_crop_figure(crop, rounding) for crop in crops)


def _crop_figure(crop: Crop, rounding: str) -> str:
    place = f"{crop.image}, {crop.width} × {crop.height} px from column {crop.left}, row {crop.top}"  # noqa: RUF001
    panels = ", ".join(f"{panel.label} {decimals(panel.psnr_db, 2)} dB" for panel in crop.panels)
    caption = (
        f"{place}, enlarged {enlargement(crop)} times; {rounding}. Below, the largest error over "
        f"R, G and B, in 8-bit steps; {ERROR_LIMIT} and more are one colour."
    )
    return figure("image/png", crop_figure(crop), f"{place}: truth, {panels}", escape(caption))


def _coverage(result: StudyResult) -> Iterable[str]:
    lines = coverage_lines(result) or ["Every layer's weights; biases stay in float."]
    yield from (f'<p class="facts">{escape(line)}</p>' for line in lines)
    yield layer_table(result)


def _decisions(result: StudyResult) -> Iterable[str]:
    yield (
        '<p class="facts">A step of <code>auto</code> stays if the squared error of the output '
        "against float falls by at least 1% on crops that it did not see. No ground truth is "
        "looked at.</p>"
    )
    for row in _decided(result):
        lines = "\n".join(f"<li>{number(escape(line))}</li>" for line in row.decisions)
        label = escape(f"{row.setting.label}, {row.method} per {row.granularity}")
        yield f"<details>\n<summary>{label}</summary>\n<ul>\n{lines}\n</ul>\n</details>"


def _decided(result: StudyResult) -> list[StudyRow]:
    """The rows whose method decided something; of all activation widths the first."""
    rows = {row.decisions: row for row in reversed(result.rows) if row.decisions}
    return list(reversed(rows.values()))


def _protocol(result: StudyResult) -> dict[str, str]:
    return {
        "model": result.model,
        "model SHA-256": result.model_sha256,
        **({} if result.cfa is None else {"CFA": result.cfa}),
        **{name.replace("_", " "): _plain(value) for name, value in result.protocol.items()},
    }


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        return "; ".join(f"{name}: {_plain(entry)}" for name, entry in entries.items())
    if isinstance(value, Sequence):
        return ", ".join(map(_plain, cast("Sequence[object]", value)))
    return str(value)
