"""A study of raw files: nobody knows the truth, the float network's output stands for it."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Mapping, Sequence
from html import escape

from rich import box
from rich.table import Table
from rich.text import Text

from quantisp.records import Crop, StudyResult, StudyRow
from quantisp.reports.crops import ERROR_LIMIT, crop_figure, crop_names, enlargement
from quantisp.reports.page_style import CSS
from quantisp.reports.page_table import plain_table
from quantisp.reports.series import decimals

__all__ = ["NO_TRUTH", "captures_files", "captures_table"]

NO_TRUTH = (
    "Raw files have no ground truth: every row is compared with the float network's output. How "
    "good that is, is not measured: there is no drop and no recommendation. An error as large as "
    "rounding to 8 bits is 58.9 dB"
)
HEADINGS = ("weights", "activations", "method", "to float, dB", "8-bit pictures", "worst picture")
NOTE = (
    "to float: mean PSNR against the float network's output; 8-bit pictures: the same after both "
    "are rounded to 8 bits (100: equal); worst picture: the least of those"
)


def captures_table(result: StudyResult) -> Table:
    """One row per setting: how far its output is from the float network's."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=f"{NO_TRUTH}. {NOTE}")
    table.add_column(HEADINGS[0], no_wrap=True)
    table.add_column(HEADINGS[1])
    table.add_column(HEADINGS[2])
    for heading in HEADINGS[3:]:
        table.add_column(heading, justify="right")
    for row in result.rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    return table


def captures_files(
    result: StudyResult, crops: Sequence[Crop], run: Mapping[str, str]
) -> dict[str, bytes]:
    """``report.html``, ``study.md`` and the crops, by their names."""
    drawn = {name: crop_figure(crop, "float") for name, crop in crop_names(crops).items()}
    page = _page(result, list(zip(crops, drawn.values(), strict=True)), run)
    return {
        "report.html": page.encode(errors="replace"),
        "study.md": _markdown(result).encode(errors="replace"),
        **drawn,
    }


def _cells(row: StudyRow) -> tuple[str, ...]:
    equal = "equal" if row.psnr_to_float_db is None else decimals(row.psnr_to_float_db, 2)
    pictures = list(row.images.values())
    return (
        row.setting.label,
        "float" if row.activation_bits is None else f"{row.activation_bits} bits",
        f"{row.method}, per {row.granularity}",
        equal,
        decimals(statistics.fmean(pictures), 2),
        decimals(min(pictures), 2),
    )


def _markdown(result: StudyResult) -> str:
    lines = [HEADINGS, ("---", "---", "---", "---:", "---:", "---:"), *map(_cells, result.rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{NO_TRUTH}.\n\n{table}\n\n{NOTE[0].upper()}{NOTE[1:]}.\n"


def _page(result: StudyResult, crops: Sequence[tuple[Crop, bytes]], run: Mapping[str, str]) -> str:
    title = escape(f"What fewer bits do to raw files: {result.model}")
    count = len(result.float.images)
    protocol = {"model SHA-256": result.model_sha256, **result.protocol}
    body = [
        f"<h1>{title}</h1>",
        f'<p class="answer">{escape(NO_TRUTH)}.</p>',
        f'<p class="facts">{escape(result.model)} on {escape(result.task)}, {count} '
        f"file{'' if count == 1 else 's'}.</p>",
        "<h2>Every width</h2>",
        plain_table(HEADINGS, [_cells(row) for row in result.rows], NOTE),
        "<h2>What it looks like</h2>" if crops else "",
        *(_figure(crop, content) for crop, content in crops),
        "<h2>Each file, PSNR to the float network's picture, dB</h2>",
        plain_table(
            ("file", *(row.setting.label for row in result.rows)),
            [
                (name, *(decimals(row.images[name], 2) for row in result.rows))
                for name in result.float.images
            ],
            "; ".join(dict.fromkeys(f"{row.method}, per {row.granularity}" for row in result.rows)),
        ),
        "<h2>How it was measured</h2>",
        _definitions(protocol),
        "<h2>The run</h2>",
        _definitions(run),
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>",
            f"<style>{CSS}</style></head>",
            "<body><main>",
            *(part for part in body if part),
            "</main></body>",
            "</html>\n",
        ]
    )


def _figure(crop: Crop, content: bytes) -> str:
    place = (
        f"{crop.image}, {crop.width} by {crop.height} px from column {crop.left}, row {crop.top}"
    )
    panels = ", ".join(f"{panel.label} {decimals(panel.psnr_db, 2)} dB" for panel in crop.panels)
    caption = (
        f"{place}, enlarged {enlargement(crop)} times. Below, the largest difference from float "
        f"over R, G and B, in 8-bit steps; {ERROR_LIMIT} and more are one colour."
    )
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure>\n<img alt="{escape(f"{place}: {panels}")}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _definitions(entries: Mapping[str, object]) -> str:
    pairs = (
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in entries.items()
    )
    return "\n".join(["<dl>", *pairs, "</dl>"])
