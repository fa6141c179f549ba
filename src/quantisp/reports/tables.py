"""The study and the evaluation as tables for a terminal and for Markdown, and in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from quantisp.records import EvaluationResult, StudyResult
from quantisp.reports import paper
from quantisp.reports.costs import COST_NOTE, cost_table, has_other_rows
from quantisp.reports.coverage import coverage_lines
from quantisp.reports.integers import integer_lines
from quantisp.reports.series import (
    COLUMN_NOTE,
    Grid,
    Group,
    Series,
    decimals,
    study_grid,
    study_series,
)
from quantisp.reports.widths import width_markdown, width_tables

__all__ = [
    "TABLE_COLUMNS",
    "evaluation_table",
    "recommendation_lines",
    "study_markdown",
    "study_table",
]

TABLE_COLUMNS = 100
"""What the tables are laid out for where nothing says how wide the terminal is, as in a pipe."""

_GAP = 2
_FLOAT = "float"


def study_table(result: StudyResult, *, columns: int = TABLE_COLUMNS) -> Table:
    """One row per width, float on top; one group of columns per method and granularity.

    Args:
        result: the study; where its pictures are Kodak's, the paper's numbers stand in front.
        columns: the terminal's width in characters. Groups that do not fit side by side are
            stacked.
    """
    grid = study_grid(result)
    bands = Table.grid()
    for groups in _bands(grid.groups, columns):
        bands.add_row(_band(grid, groups))
        bands.add_row("")
    bands.add_row(Text(COLUMN_NOTE, style="dim"))
    return bands


def evaluation_table(result: EvaluationResult) -> Table:
    """One row per picture: PSNR, PSNR without a border, SSIM; and their means."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("image", footer="mean", overflow="fold")
    for heading, mean in (
        ("PSNR\ndB", decimals(result.psnr_db)),
        (f"PSNR dB,\nno {result.border_px} px border", decimals(result.psnr_cropped_db)),
        ("\nSSIM", decimals(result.ssim, 4)),
    ):
        table.add_column(heading, footer=mean, justify="right", no_wrap=True)
    for name, quality in result.images.items():
        table.add_row(
            Text(name),  # not markup: brackets are common in file names
            decimals(quality.psnr_db),
            decimals(quality.psnr_cropped_db),
            decimals(quality.ssim, 4),
        )
    return table


def recommendation_lines(result: StudyResult) -> list[str]:
    """In plain words, a line for each series: how many bits are enough.

    Such as ``rtn, per tensor: 9 bits are the fewest within 0.05 dB of float``.
    """
    return [
        f"{series.label}: {_recommendation(series)}"
        for series in study_series(result)
        if series.recommendation is not None
    ]


def study_markdown(result: StudyResult) -> str:
    """The study as Markdown: the recommendations, then one table per method and granularity."""
    grid = study_grid(result)
    reference = grid.groups[:1] if result.is_kodak else ()
    said = [*recommendation_lines(result), *integer_lines(result), *coverage_lines(result)]
    lines = [f"- {_markdown(line)}" for line in said]
    for table in width_tables(result):
        lines += ["", f"### {_markdown(table.title)}", "", *width_markdown(table)]
    for group in grid.groups[len(reference) :]:
        lines += ["", f"### {_markdown(group.title)}", "", *_markdown_table(grid, group, reference)]
    lines += _cost_markdown(result)
    lines += ["", f"{COLUMN_NOTE[0].upper()}{COLUMN_NOTE[1:]}."]
    if reference:
        lines += ["", f"The paper: {paper.CITATION}"]
    return "\n".join(lines) + "\n"


def _cost_markdown(result: StudyResult) -> list[str]:
    table = cost_table(result)
    if table is None or not has_other_rows(result):
        return []
    stress = ["**" if index == table.knee else "" for index in range(len(table.rows))]
    rows = [
        [f"{mark}{_markdown(text)}{mark}" if text else "" for text in row]
        for mark, row in zip(stress, table.rows, strict=True)
    ]
    lines = [table.headings, ["---", *["---:"] * (len(table.headings) - 1)], *rows]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return ["", "### Quality against cost", "", *written, "", f"{COST_NOTE}."]


def _bands(groups: tuple[Group, ...], columns: int) -> Iterator[list[Group]]:
    room = columns - len(_FLOAT)
    band: list[Group] = []
    used = 0
    for group in groups:
        width = _GAP + sum(_column_widths(group)) + len(group.headings) - 1
        if band and used + width > room:
            yield band
            band, used = [], 0
        band.append(group)
        used += width
    yield band


def _band(grid: Grid, groups: list[Group]) -> Table:
    band = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    for _ in range(1 + len(groups)):
        band.add_column(vertical="bottom")
    # Titles are a row of their own, so that one that wraps moves every group down alike.
    band.add_row("", *(Text(group.title, style="bold") for group in groups))
    bits = _plain_table()
    bits.add_column("\nbits", justify="right", no_wrap=True)
    for width in grid.widths:
        bits.add_row(_FLOAT if width is None else str(width))
    band.add_row(bits, *(_group_table(grid, group) for group in groups))
    return band


def _group_table(grid: Grid, group: Group) -> Table:
    table = _plain_table()
    for heading, width in zip(group.headings, _column_widths(group), strict=True):
        table.add_column("\n".join(heading), justify="right", no_wrap=True, min_width=width)
    for bits in grid.widths:
        chosen = bits is not None and bits == group.chosen_bits
        table.add_row(*group.cells_at(bits), style="bold green" if chosen else "")
    return table


def _plain_table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False, header_style="dim"
    )


def _column_widths(group: Group) -> list[int]:
    texts = [group.float_cells, *group.cells.values()]
    return [
        max(*map(len, heading), *(len(cells[index]) for cells in texts))
        for index, heading in enumerate(group.headings)
    ]


def _recommendation(series: Series) -> str:
    recommendation = series.recommendation
    if recommendation is None:
        return ""
    within = f"within {recommendation.within_db:g} dB of float"
    fewest, most = series.rows[0].width, series.rows[-1].width
    if recommendation.weight_bits is None:
        studied = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return f"no width that was studied ({studied} bits) is enough to stay {within}"
    if recommendation.weight_bits == fewest:
        return f"{fewest} bits are {within}; fewer were not studied"
    return f"{recommendation.weight_bits} bits are the fewest {within}"


def _markdown_table(grid: Grid, group: Group, reference: tuple[Group, ...]) -> list[str]:
    groups = (*reference, group)
    headings = [
        f"{_markdown(part.title)}: {' '.join(heading)}" if part in reference else " ".join(heading)
        for part in groups
        for heading in part.headings
    ]
    rows = [
        [
            _FLOAT if bits is None else f"**{bits}**" if bits == group.chosen_bits else str(bits),
            *(cell for part in groups for cell in part.cells_at(bits)),
        ]
        for bits in grid.widths
        if bits is None or bits in group.cells
    ]
    lines = [["weight bits", *headings], ["---:"] * (1 + len(headings)), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _markdown(text: str) -> str:
    for character in "\\`*_|<>[]$":
        text = text.replace(character, f"\\{character}")
    return text
