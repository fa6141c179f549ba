"""The study as one HTML file that needs nothing else: no script, no font, no address."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import cast

from quantisp.records import Crop, StudyResult
from quantisp.reports import paper
from quantisp.reports.cost_figure import cost_figure
from quantisp.reports.costs import COST_NOTE, MAC_HEADINGS, cost_table, knee, mac_rows
from quantisp.reports.coverage import COVERAGE_HEADINGS, coverage_lines, coverage_rows
from quantisp.reports.crops import ERROR_LIMIT, crop_figure, enlargement
from quantisp.reports.figures import psnr_figure
from quantisp.reports.heatmap import width_figure
from quantisp.reports.page_style import CSS
from quantisp.reports.page_table import plain_table
from quantisp.reports.series import (
    COLUMN_NOTE,
    Grid,
    Group,
    Series,
    decimals,
    study_grid,
    study_series,
    widest_series,
)
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
        _section("Every width", _study_table(result)),
        _section("Quality against cost", *_costs(result)) if cost_table(result) else "",
        _section("What it looks like", *_crop_figures(result, crops)) if crops else "",
        _section("Each picture", *(_image_table(result, one) for one in study_series(result))),
        _section("What was quantized", *_coverage(result)) if result.coverage else "",
        _section("How it was measured", _definitions(_protocol(result))),
        _section("The run", _definitions(run)) if run else "",
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
        f"{_number(decimals(result.float.psnr_db))} dB, SSIM {decimals(result.float.ssim, 4)}.</p>"
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


def _section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{heading}</h2>", *parts, "</section>"])


def _psnr_figure(result: StudyResult) -> str:
    caption = (
        "Left, mean PSNR against weight bits; right, what each width costs, on a logarithmic axis. "
        "A ring marks the fewest bits that are enough there and at every larger width."
    )
    alt = (
        "Two charts over weight bits: PSNR, and its drop against float; the table below has the "
        f"numbers. {'; '.join(recommendation_lines(result))}"
    )
    return _figure("image/svg+xml", psnr_figure(result, "svg"), alt, caption)


def _costs(result: StudyResult) -> Iterable[str]:
    table, figure, best = cost_table(result), cost_figure(result, "svg"), knee(result)
    if table is None or figure is None:
        return
    if best is not None:
        yield (
            f"<p>The knee of PSNR against bit operations is at <strong>"
            f"{escape(best.setting.label)}</strong>: {_number(decimals(best.drop_db))} dB below "
            "float.</p>"
        )
    caption = (
        "Left, PSNR against bit operations for an output pixel; right, against the size of the "
        "weights, both on logarithmic axes."
    )
    yield _figure("image/svg+xml", figure, "Two charts; the table below has the numbers.", caption)
    yield plain_table(table.headings, table.rows, f"{COST_NOTE}.", chosen=table.knee)
    note = (
        "Estimates for 45 nm between and beyond the points that Horowitz published (ISSCC 2014): "
        "8-bit and 32-bit integers, float16 and float32; sums of 576 products."
    )
    yield plain_table(MAC_HEADINGS, mac_rows(), note)


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
        + "\n".join(f"<li>{_number(escape(line))}</li>" for line in frontier_lines(table))
        + "\n</ul>"
        for table in tables
    ]
    alt = "; ".join(f"{table.title}: {', '.join(frontier_lines(table))}" for table in tables)
    figure = _figure("image/svg+xml", width_figure(tables, "svg"), alt, caption)
    yield _section("Weights and activations", figure, *lists)


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
    return _figure("image/png", crop_figure(crop), f"{place}: truth, {panels}", escape(caption))


def _figure(media_type: str, content: bytes, alt: str, caption: str) -> str:
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure>\n<img alt="{escape(alt)}" src="data:{media_type};base64,{data}">\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _study_table(result: StudyResult) -> str:
    grid = study_grid(result)
    titles = "".join(
        f'<th class="group first" colspan="{len(group.headings)}" scope="colgroup">'
        f"{escape(group.title)}</th>"
        for group in grid.groups
    )
    headings = "".join(
        f'<th{_first(index)} scope="col">{"<br>".join(lines)}</th>'
        for group in grid.groups
        for index, lines in enumerate(group.headings)
    )
    note = f"{COLUMN_NOTE[0].upper()}{COLUMN_NOTE[1:]}. Highlighted: the recommended width."
    if result.is_kodak:
        note += f" The paper: {paper.CITATION}"
    return "\n".join(
        [
            '<div class="wide">',
            "<table>",
            f"<caption>{escape(note)}</caption>",
            "<thead>",
            f'<tr><th rowspan="2" scope="col">weight<br>bits</th>{titles}</tr>',
            f"<tr>{headings}</tr>",
            "</thead>",
            "<tbody>",
            *(_study_row(grid, bits) for bits in grid.widths),
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _study_row(grid: Grid, bits: int | None) -> str:
    name = "float" if bits is None else str(bits)
    cells = "".join(_group_cells(group, bits) for group in grid.groups)
    return f'<tr{_class(name if bits is None else "")}><th scope="row">{name}</th>{cells}</tr>'


def _group_cells(group: Group, bits: int | None) -> str:
    chosen = "chosen" if bits is not None and bits == group.chosen_bits else ""
    return "".join(
        f"<td{_class('first' if index == 0 else '', chosen)}>{_number(text)}</td>"
        for index, text in enumerate(group.cells_at(bits))
    )


def _image_table(result: StudyResult, series: Series) -> str:
    widths = "".join(f'<th scope="col">{row.weight_bits}</th>' for row in series.rows)
    rows = [
        f'<tr><th class="name" scope="row">{escape(name)}</th>'
        f"<td>{_number(decimals(psnr_db))}</td>"
        + "".join(f"<td>{_image_cell(row.images, name)}</td>" for row in series.rows)
        + "</tr>"
        for name, psnr_db in result.float.images.items()
    ]
    return "\n".join(
        [
            "<details>",
            f"<summary>PSNR of each picture, dB: {escape(series.label)}</summary>",
            '<div class="wide">',
            "<table>",
            f'<thead><tr><th scope="col">weight bits</th><th scope="col">float</th>{widths}</tr>'
            "</thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table>",
            "</div>",
            "</details>",
        ]
    )


def _image_cell(images: Mapping[str, float], name: str) -> str:
    return _number(decimals(images[name])) if name in images else ""


def _coverage(result: StudyResult) -> Iterable[str]:
    lines = coverage_lines(result) or ["Every layer's weights; biases stay in float."]
    yield from (f'<p class="facts">{escape(line)}</p>' for line in lines)
    headings = "".join(f'<th scope="col">{heading}</th>' for heading in COVERAGE_HEADINGS)
    rows = [
        f'<tr><th class="name" scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in texts)
        + "</tr>"
        for name, *texts in coverage_rows(result)
    ]
    yield "\n".join(
        [
            "<details>",
            "<summary>Each layer</summary>",
            '<div class="wide">',
            "<table>",
            f"<thead><tr>{headings}</tr></thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            "</table>",
            "</div>",
            "</details>",
        ]
    )


def _protocol(result: StudyResult) -> dict[str, str]:
    return {
        "model": result.model,
        "model SHA-256": result.model_sha256,
        **({} if result.cfa is None else {"CFA": result.cfa}),
        **{name.replace("_", " "): _plain(value) for name, value in result.protocol.items()},
    }


def _definitions(entries: Mapping[str, str]) -> str:
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items())
    return "\n".join(["<dl>", *pairs, "</dl>"])


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


def _number(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _first(index: int) -> str:
    return _class("first" if index == 0 else "")


def _class(*names: str) -> str:
    used = " ".join(name for name in names if name)
    return f' class="{used}"' if used else ""
