"""Tables, figures and pages: records in, files out."""

from quantisp.reports.captures import captures_table
from quantisp.reports.costs import cost_screen_table, has_other_rows
from quantisp.reports.coverage import coverage_lines
from quantisp.reports.crops import crop_figure
from quantisp.reports.figures import psnr_figure
from quantisp.reports.heatmap import width_figure
from quantisp.reports.integers import integer_lines
from quantisp.reports.page import report_page
from quantisp.reports.tables import (
    evaluation_table,
    recommendation_lines,
    study_markdown,
    study_table,
)
from quantisp.reports.widths import WidthTable, frontier_lines, width_tables, width_text
from quantisp.reports.writer import write_report

__all__ = [
    "WidthTable",
    "captures_table",
    "cost_screen_table",
    "coverage_lines",
    "crop_figure",
    "evaluation_table",
    "frontier_lines",
    "has_other_rows",
    "integer_lines",
    "psnr_figure",
    "recommendation_lines",
    "report_page",
    "study_markdown",
    "study_table",
    "width_figure",
    "width_tables",
    "width_text",
    "write_report",
]
