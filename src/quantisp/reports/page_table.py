"""Tables as HTML: of texts, of every width, of each picture and of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from quantisp.records import StudyResult
from quantisp.reports import paper
from quantisp.reports.coverage import COVERAGE_HEADINGS, coverage_rows
from quantisp.reports.page_parts import css_class, number
from quantisp.reports.series import COLUMN_NOTE, Grid, Group, Series, decimals, study_grid

__all__ = ["image_table", "layer_table", "plain_table", "study_table"]


def plain_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str,
    *,
    chosen: int | None = None,
) -> str:
    """Names in the first column, numbers in the others.

    Args:
        headings: of the columns.
        rows: of texts.
        note: below the table.
        chosen: the row to stress.
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = [
        f"<tr{' class=chosen' if index == chosen else ''}>"
        f'<th class="name" scope="row">{escape(name)}</th>'
        + "".join(f"<td>{number(escape(cell))}</td>" for cell in cells)
        + "</tr>"
        for index, (name, *cells) in enumerate(rows)
    ]
    return "\n".join(
        [
            '<div class="wide">',
            "<table>",
            f"<caption>{escape(note)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *body,
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def study_table(result: StudyResult) -> str:
    """Every width, with the groups of columns of each way to round."""
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
    return f'<tr{css_class(name if bits is None else "")}><th scope="row">{name}</th>{cells}</tr>'


def _group_cells(group: Group, bits: int | None) -> str:
    chosen = "chosen" if bits is not None and bits == group.chosen_bits else ""
    return "".join(
        f"<td{css_class('first' if index == 0 else '', chosen)}>{number(text)}</td>"
        for index, text in enumerate(group.cells_at(bits))
    )


def image_table(result: StudyResult, series: Series) -> str:
    """Each picture's PSNR at every width, folded away."""
    widths = "".join(f'<th scope="col">{row.weight_bits}</th>' for row in series.rows)
    rows = [
        f'<tr><th class="name" scope="row">{escape(name)}</th>'
        f"<td>{number(decimals(psnr_db))}</td>"
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
    return number(decimals(images[name])) if name in images else ""


def layer_table(result: StudyResult) -> str:
    """What became of each layer, folded away."""
    headings = "".join(f'<th scope="col">{heading}</th>' for heading in COVERAGE_HEADINGS)
    rows = [
        f'<tr><th class="name" scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in texts)
        + "</tr>"
        for name, *texts in coverage_rows(result)
    ]
    return "\n".join(
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


def _first(index: int) -> str:
    return css_class("first" if index == 0 else "")
