"""The report's files, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from quantisp.files import make_folder, write_atomically
from quantisp.records import Crop, StudyResult
from quantisp.reports.captures import captures_files
from quantisp.reports.cost_figure import cost_figure
from quantisp.reports.crops import crop_figure, crop_names
from quantisp.reports.figures import psnr_figure
from quantisp.reports.heatmap import width_figure
from quantisp.reports.page import report_page
from quantisp.reports.style import ImageFormat
from quantisp.reports.tables import study_markdown
from quantisp.reports.widths import width_tables

__all__ = ["write_report"]


def write_report(
    folder: Path, result: StudyResult, crops: Sequence[Crop], run: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write the page, the table in Markdown, the figures, and one picture per crop.

    They are ``report.html``, ``study.md``, ``psnr.svg``, ``psnr.png``, where costs are known
    ``cost.svg`` and ``cost.png``, where activations have bits ``widths.svg`` and ``widths.png``,
    and ``crop-<name>-<top>-<left>.png``.

    Everything is drawn before anything is written; files of the same names are replaced.

    Args:
        folder: made if it is missing.
        result, crops, run: as for :func:`~quantisp.reports.page.report_page`.

    Returns:
        What was written, the page first.

    Raises:
        OutputError: the folder cannot be made or written to.
    """
    files = (_files if result.has_truth else captures_files)(result, crops, run)
    make_folder(folder)
    for name, content in files.items():
        write_atomically(folder / name, content)
    return tuple(folder / name for name in files)


def _files(result: StudyResult, crops: Sequence[Crop], run: Mapping[str, str]) -> dict[str, bytes]:
    return {
        # A name that is not UTF-8 reaches us with lone surrogates, which no file can hold.
        "report.html": report_page(result, crops, run).encode(errors="replace"),
        "study.md": study_markdown(result).encode(errors="replace"),
        "psnr.svg": psnr_figure(result, "svg"),
        "psnr.png": psnr_figure(result, "png"),
        **_cost_files(result),
        **_width_figures(result),
        **{name: crop_figure(crop) for name, crop in crop_names(crops).items()},
    }


def _cost_files(result: StudyResult) -> dict[str, bytes]:
    """The figure of quality against cost, where costs are known."""
    images: tuple[ImageFormat, ...] = ("svg", "png")
    drawn = {f"cost.{image}": cost_figure(result, image) for image in images}
    return {name: content for name, content in drawn.items() if content is not None}


def _width_figures(result: StudyResult) -> dict[str, bytes]:
    tables = width_tables(result)
    if not tables:
        return {}
    return {"widths.svg": width_figure(tables, "svg"), "widths.png": width_figure(tables, "png")}
