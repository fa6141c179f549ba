"""A study as series of widths, and as the one grid of text that every table shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quantisp.records import Recommendation, StudyResult, StudyRow
from quantisp.reports import paper

__all__ = [
    "COLUMN_NOTE",
    "Grid",
    "Group",
    "Series",
    "decimals",
    "study_grid",
    "study_series",
    "widest_series",
]

COLUMN_NOTE = (
    "worst image, worst tile: the largest drop in dB of a picture and of a 128x128 px tile; "
    "to float: PSNR in dB against the float network's own output"
)
_HEADINGS = (("PSNR", "dB"), ("drop", "dB"), ("worst", "image"), ("worst", "tile"), ("to", "float"))


@dataclass(frozen=True, kw_only=True)
class Series:
    """The rows that differ in their weight bits alone, fewest bits first."""

    method: str
    granularity: str
    activation_bits: int | None
    rows: tuple[StudyRow, ...]
    recommendation: Recommendation | None

    @property
    def label(self) -> str:
        """Such as ``rtn, per tensor``."""
        activations = (
            "" if self.activation_bits is None else f", {self.activation_bits}-bit activations"
        )
        return f"{self.method}, per {self.granularity}{activations}"

    @property
    def chosen_bits(self) -> int | None:
        """The recommended width, if there is one."""
        return None if self.recommendation is None else self.recommendation.weight_bits


@dataclass(frozen=True, kw_only=True)
class Group:
    """Neighbouring columns under one title.

    Args:
        title: of the whole group.
        headings: of each column, in two lines.
        float_cells: one text per column.
        cells: for each width, one text per column; a width may be missing.
        chosen_bits: the width to stress, or None.
    """

    title: str
    headings: tuple[tuple[str, str], ...]
    float_cells: tuple[str, ...]
    cells: Mapping[int, tuple[str, ...]]
    chosen_bits: int | None = None

    def cells_at(self, bits: int | None) -> tuple[str, ...]:
        """The texts of one row; None is float; a missing width is empty."""
        if bits is None:
            return self.float_cells
        return self.cells.get(bits, ("",) * len(self.headings))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The table: one row for float (None) and one per width, one group of columns per series."""

    widths: tuple[int | None, ...]
    groups: tuple[Group, ...]


def study_series(result: StudyResult) -> tuple[Series, ...]:
    """The series of a study, in the order in which they first appear."""
    rows: dict[tuple[str, str, int | None], list[StudyRow]] = {}
    for row in result.uniform_rows:
        rows.setdefault(row.setting.series, []).append(row)
    chosen = {(r.method, r.granularity, r.activation_bits): r for r in result.recommendation}
    return tuple(
        Series(
            method=key[0],
            granularity=key[1],
            activation_bits=key[2],
            rows=tuple(sorted(group, key=lambda row: row.width)),
            recommendation=chosen.get(key),
        )
        for key, group in rows.items()
    )


def widest_series(result: StudyResult) -> tuple[Series, ...]:
    """Of each way of rounding weights, the series of the widest activations; float is widest.

    What narrower activations cost is a table of its own.
    """
    found: dict[tuple[str, str], Series] = {}
    for series in study_series(result):
        key = (series.method, series.granularity)
        if key not in found or _width(series) > _width(found[key]):
            found[key] = series
    return tuple(found.values())


def _width(series: Series) -> float:
    return math.inf if series.activation_bits is None else float(series.activation_bits)


def study_grid(result: StudyResult) -> Grid:
    """The table as text; the paper's columns come first, where the pictures are Kodak's."""
    groups = [_series_group(series, result.float.psnr_db) for series in study_series(result)]
    if result.is_kodak:
        groups.insert(0, _paper_group())
    widths = sorted({row.width for row in result.uniform_rows})
    return Grid(widths=(None, *widths), groups=tuple(groups))


def decimals(value: float, digits: int = 3) -> str:
    """Fixed decimals without a negative zero; the infinite PSNR of equal pictures is a sign.

    >>> decimals(-0.0001), decimals(math.inf), decimals(math.nan)
    ('0.000', '∞', '–')
    """
    if math.isnan(value):
        return "–"  # noqa: RUF001 - an en dash, as tables set what is not there
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:z.{digits}f}"


def _paper_group() -> Group:
    return Group(
        title="the paper",
        headings=_HEADINGS[:2],
        float_cells=(decimals(paper.FLOAT_PSNR_DB), ""),
        cells={
            bits: (decimals(psnr), decimals(paper.paper_drop_db(bits)))
            for bits, psnr in paper.PSNR_DB.items()
        },
    )


def _series_group(series: Series, float_psnr_db: float) -> Group:
    return Group(
        title=series.label,
        headings=_HEADINGS,
        float_cells=(decimals(float_psnr_db), "", "", "", ""),
        cells={row.width: _row_cells(row) for row in series.rows},
        chosen_bits=series.chosen_bits,
    )


def _row_cells(row: StudyRow) -> tuple[str, ...]:
    to_float = row.psnr_to_float_db
    return (
        decimals(row.psnr_db),
        decimals(row.drop_db),
        decimals(row.worst_image_drop_db),
        decimals(row.worst_tile_drop_db),
        "equal" if to_float is None else decimals(to_float, 2),
    )
