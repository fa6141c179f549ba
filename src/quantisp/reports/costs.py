"""Quality against what it costs: every row by its bit operations and bytes, and the knee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from quantisp.hardware import MAC_EXAMPLES
from quantisp.records import StudyResult, StudyRow
from quantisp.reports.series import decimals

__all__ = [
    "COST_NOTE",
    "MAC_HEADINGS",
    "CostPoint",
    "CostTable",
    "cost_points",
    "cost_screen_table",
    "cost_table",
    "has_other_rows",
    "knee",
    "mac_rows",
]

COST_NOTE = (
    "kBOP/px: weight bits times activation bits of every multiplication, for an output pixel, in "
    "thousands; float counts as 32 bits. kB: packed codes and their scales, without biases. pJ and "
    "µm² of one multiply-accumulate in 45 nm are estimates between published points (Horowitz, "
    "ISSCC 2014); the area is that of a unit for the widest layer. Float activations make it a "
    "float32 one, whatever the weights. * on the frontier: no row is cheaper in bit operations and "
    "as good. Knee: the point of the frontier that lies farthest above the line between its ends"
)
MAC_HEADINGS = ("multiply-accumulate", "pJ", "µm²", "energy to float32", "area to float32")
_HEADINGS = (
    "setting",
    "weight bits",
    "kB",
    "kBOP/px",
    "pJ/MAC",
    "µm²/MAC",
    "PSNR dB",
    "drop dB",
    "worst tile",
    "to float",
)


@dataclass(frozen=True, kw_only=True)
class CostPoint:
    """One row of the study, for the figure.

    Args:
        label: of a row of a mixed plan or a weight format; empty for others.
        group: what rows it belongs to: a series, or ``formats``.
        weight_bytes, bops_per_px, psnr_db: of the row.
        on_frontier: no row is cheaper in bit operations and as good.
    """

    label: str
    group: str
    weight_bytes: int
    bops_per_px: float
    psnr_db: float
    on_frontier: bool


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """The table as text: float first, then every row by its bit operations; ``knee`` is a row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    knee: int | None


def has_other_rows(result: StudyResult) -> bool:
    """Whether the study has rows that are not uniform."""
    return len(result.uniform_rows) < len(result.rows)


def cost_table(result: StudyResult) -> CostTable | None:
    """Every row whose cost is known, cheapest first; None if there is none."""
    rows = _costed(result)
    if not rows:
        return None
    frontier = _frontier(rows)
    found = knee(result)
    texts = [_float_cells(result), *(_cells(row, row in frontier) for row in rows)]
    return CostTable(
        headings=_HEADINGS,
        rows=tuple(texts),
        knee=None if found is None else 1 + rows.index(found),
    )


def cost_points(result: StudyResult) -> tuple[CostPoint, ...]:
    """The same rows for the figure."""
    rows = _costed(result)
    frontier = _frontier(rows)
    return tuple(
        CostPoint(
            label=row.setting.label if row.plan or row.weight_format else "",
            group=_group(row),
            weight_bytes=row.weight_bytes,
            bops_per_px=row.bops_per_px,
            psnr_db=row.psnr_db,
            on_frontier=row in frontier,
        )
        for row in rows
        if row.weight_bytes is not None and row.bops_per_px is not None
    )


def knee(result: StudyResult) -> StudyRow | None:
    """Where more bit operations stop to pay.

    The point of the frontier that lies farthest above the line between the frontier's ends, with
    the logarithm of the operations and the PSNR both scaled to 0 to 1: the knee of Satopaa et al.,
    "Finding a kneedle in a haystack", ICDCS workshops 2011. None for fewer than three points.
    """
    frontier = _frontier(_costed(result))
    if len(frontier) < 3:
        return None
    costs = [math.log2(row.bops_per_px or 1.0) for row in frontier]
    gains = [row.psnr_db for row in frontier]
    width, height = costs[-1] - costs[0], gains[-1] - gains[0]
    above = [
        (gain - gains[0]) / height - (cost - costs[0]) / width
        for cost, gain in zip(costs, gains, strict=True)
    ]
    best = max(range(len(frontier)), key=lambda index: above[index])
    return frontier[best] if above[best] > 0.0 else None


def mac_rows() -> tuple[tuple[str, ...], ...]:
    """What one multiply-accumulate costs in some formats, as text under ``MAC_HEADINGS``."""
    reference = MAC_EXAMPLES["float32 x float32"]
    return tuple(
        (
            name,
            decimals(unit.energy_pj, 2),
            decimals(unit.area_um2, 0),
            f"{100 * unit.energy_pj / reference.energy_pj:.1f}%",
            f"{100 * unit.area_um2 / reference.area_um2:.1f}%",
        )
        for name, unit in MAC_EXAMPLES.items()
    )


def cost_screen_table(result: StudyResult) -> Table | None:
    """The table for a terminal, or None where no cost is known."""
    table = cost_table(result)
    if table is None:
        return None
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for index, heading in enumerate(table.headings):
        words = heading.replace(" ", "\n", 1).replace("/", "/\n", 1)
        shown.add_column(words, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for index, cells in enumerate(table.rows):
        style = "bold green" if index == table.knee else ""
        shown.add_row(*map(Text, cells), style=style)
    shown.caption = "* on the frontier of PSNR against bit operations"
    if table.knee is not None:
        shown.caption += f"; the knee: {table.rows[table.knee][0]}"
    return shown


def _costed(result: StudyResult) -> list[StudyRow]:
    """Cheapest first; of equally cheap ones, the best first."""
    rows = [row for row in result.rows if row.bops_per_px is not None]
    return sorted(rows, key=lambda row: (row.bops_per_px or 0.0, -row.psnr_db))


def _frontier(rows: Sequence[StudyRow]) -> list[StudyRow]:
    found: list[StudyRow] = []
    for row in rows:
        if not found or row.psnr_db > found[-1].psnr_db:
            found.append(row)
    return found


def _group(row: StudyRow) -> str:
    if row.weight_format is not None:
        return "formats"
    activations = "" if row.activation_bits is None else f", {row.activation_bits}-bit activations"
    kind = ", mixed" if row.plan is not None else ""
    return f"{row.method}, per {row.granularity}{activations}{kind}"


def _name(row: StudyRow) -> str:
    if row.weight_format is not None:
        return row.weight_format
    return f"{row.setting.label}: {_group(row)}"


def _float_cells(result: StudyResult) -> tuple[str, ...]:
    size, bops = result.float.weight_bytes, result.float.bops_per_px
    unit = MAC_EXAMPLES["float32 x float32"]
    return (
        "float",
        "32",
        "" if size is None else decimals(size / 1000, 1),
        "" if bops is None else decimals(bops / 1000, 0),
        decimals(unit.energy_pj, 2),
        decimals(unit.area_um2, 0),
        decimals(result.float.psnr_db),
        "",
        "",
        "",
    )


def _cells(row: StudyRow, on_frontier: bool) -> tuple[str, ...]:
    to_float = row.psnr_to_float_db
    return (
        _name(row) + (" *" if on_frontier else ""),
        ""
        if row.mean_weight_bits is None
        else f"{row.mean_weight_bits:.3f}".rstrip("0").rstrip("."),
        "" if row.weight_bytes is None else decimals(row.weight_bytes / 1000, 1),
        "" if row.bops_per_px is None else decimals(row.bops_per_px / 1000, 0),
        "" if row.mac_energy_pj is None else decimals(row.mac_energy_pj, 2),
        "" if row.mac_area_um2 is None else decimals(row.mac_area_um2, 0),
        decimals(row.psnr_db),
        decimals(row.drop_db),
        decimals(row.worst_tile_drop_db),
        "equal" if to_float is None else decimals(to_float, 2),
    )
