"""The cost sheet as a table for a terminal, and as text for a page."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from quantisp.records import StudyResult
from quantisp.records.costs import CostSheet, TensorCost

__all__ = [
    "SHEET_HEADINGS",
    "SHEET_NOTE",
    "cost_sheet_table",
    "sheet_rows",
    "sheet_subject",
    "sheet_totals",
]

SHEET_HEADINGS = (
    "tensor",
    "operation",
    "W",
    "in",
    "out",
    "MAC/px",
    "kBOP/px",
    "weights kB",
    "channels",
    "rows",
    "buffer kB",
    "map MB",
)
SHEET_NOTE = (
    "Each tensor that is stored, and what computes it. MAC and kBOP (thousands of bit operations: "
    "weight bits times input bits) for a pixel of the output; rows: how many of the tensor wait in "
    "its line buffer; kB are 1000 bytes, MB a million. docs/costs.md defines them"
)


def sheet_rows(sheet: CostSheet) -> tuple[tuple[str, ...], ...]:
    """Each tensor as text, under ``SHEET_HEADINGS``, and the sums below."""
    rows = [_cells(tensor, sheet.output_px) for tensor in sheet.tensors]
    total = (
        "total",
        "",
        "",
        "",
        "",
        f"{sheet.macs / sheet.output_px:,.0f}",
        f"{sheet.bops / sheet.output_px / 1e3:,.1f}",
        f"{sheet.weight_bytes / 1e3:,.1f}",
        "",
        "",
        f"{sheet.buffer_bytes / 1e3:,.1f}",
        f"{sum(tensor.map_bytes for tensor in sheet.tensors) / 1e6:,.2f}",
    )
    return (*rows, total)


def sheet_totals(sheet: CostSheet) -> dict[str, str]:
    """What is said of the whole network on a frame, in words."""
    return {
        "frame": f"{sheet.width}x{sheet.height} px",
        "multiply-accumulates": f"{sheet.macs / 1e9:,.2f} G a frame, "
        f"{sheet.macs / sheet.output_px:,.0f} for a pixel",
        "bit operations": f"{sheet.bops / 1e12:,.2f} T a frame, "
        f"{sheet.bops / sheet.output_px / 1e3:,.1f} k for a pixel",
        "weights": f"{sheet.weight_bytes / 1e3:,.1f} kB",
        "line buffers": f"{sheet.buffer_bytes / 1e3:,.1f} kB",
        "latency": f"{sheet.latency_rows} rows",
        "memory traffic of a frame": f"{sheet.streamed_bytes / 1e6:,.2f} MB with line buffers, "
        f"{sheet.stored_bytes / 1e6:,.2f} MB if every tensor is stored "
        f"(input {sheet.input_bytes / 1e6:,.2f}, output {sheet.output_bytes / 1e6:,.2f})",
        "energy of multiply-accumulates": f"{sheet.energy_mj:,.3g} mJ a frame in 45 nm",
        "largest unit": f"{sheet.mac_area_um2:,.0f} µm²",
    }


def sheet_subject(result: StudyResult) -> str:
    """What the sheet of a study is of."""
    if result.cost_sheet is None or result.cost_sheet_row is None:
        return ""
    row = result.rows[result.cost_sheet_row]
    return (
        f"{row.setting.label}, A{row.activation_bits}, {row.method} per {row.granularity}: the "
        "cheapest row in integers that is within the tolerance, or else the best; on frames of "
        f"{result.cost_sheet.width}x{result.cost_sheet.height} px, the largest picture's size"
    )


def cost_sheet_table(sheet: CostSheet) -> Table:
    """The sheet for a terminal; sums come last."""
    table = Table(title="Cost sheet", header_style="dim", pad_edge=False)
    for index, heading in enumerate(SHEET_HEADINGS):
        table.add_column(
            heading.replace(" ", "\n"), justify="left" if index < 2 else "right", overflow="fold"
        )
    rows = sheet_rows(sheet)
    for cells in rows:
        table.add_row(*map(Text, cells), end_section=cells is rows[-2])
    return table


def _cells(tensor: TensorCost, px: int) -> tuple[str, ...]:
    return (
        tensor.layer or tensor.name,
        tensor.kind,
        _bits(tensor.weight_bits) if tensor.layer is not None else "",
        _bits(tensor.input_bits) if tensor.kind != "Input" else "",
        _bits(tensor.output_bits),
        f"{tensor.macs / px:,.0f}" if tensor.macs else "",
        f"{tensor.bops / px / 1e3:,.1f}" if tensor.bops else "",
        f"{tensor.weight_bytes / 1e3:,.2f}" if tensor.weight_bytes else "",
        str(tensor.channels),
        str(tensor.rows) if tensor.rows else "",
        f"{tensor.buffer_bytes / 1e3:,.1f}" if tensor.buffer_bytes else "",
        f"{tensor.map_bytes / 1e6:,.2f}",
    )


def _bits(width: int | None) -> str:
    return "float" if width is None else str(width)
