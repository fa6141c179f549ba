"""The heat map: what each pair of widths costs, and which pairs are worth building."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantisp.reports.series import decimals
from quantisp.reports.style import INK, ImageFormat, drawing_style, encoded
from quantisp.reports.widths import WidthTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["width_figure"]

# Drops outside are drawn in the first and last colour.
_LEAST_DB, _MOST_DB = 0.003, 10.0
_COLOURS = "YlOrRd"
_CELL_IN = (0.66, 0.36)
_MARGIN_IN = (0.75, 0.25, 0.6, 0.62)  # left, right, top, bottom
# Darker cells have white numbers.
_DARK = 0.62


def width_figure(tables: Sequence[WidthTable], image_format: ImageFormat) -> bytes:
    """Weight bits down, activation bits across, one panel for each table, one below the other.

    Colours are on a logarithmic scale, the same for all; a frame marks the frontier: the pairs
    that lose less than every pair of as many bit operations or fewer. Equal tables give equal
    bytes.
    """
    from matplotlib.figure import Figure

    left, right, top, bottom = _MARGIN_IN
    columns = max(len(table.activation_bits) for table in tables)
    width_in = max(left + columns * _CELL_IN[0] + right, 6.0)
    heights = [top + len(table.weight_bits) * _CELL_IN[1] + bottom for table in tables]
    total = sum(heights)
    with drawing_style():
        figure = Figure(figsize=(width_in, total), dpi=150)
        above = total
        for table, height in zip(tables, heights, strict=True):
            above -= height
            body = (len(table.activation_bits) * _CELL_IN[0], len(table.weight_bits) * _CELL_IN[1])
            axes = figure.add_axes(
                (
                    left / width_in,
                    (above + bottom) / total,
                    body[0] / width_in,
                    body[1] / total,
                )
            )
            _draw_table(axes, table)
        return encoded(figure, image_format)


def _draw_table(axes: Axes, table: WidthTable) -> None:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    colours = mpl.colormaps[_COLOURS]
    frontier = {(pair.weight_bits, pair.activation_bits) for pair in table.frontier()}
    for row, weight in enumerate(table.weight_bits):
        for column, activation in enumerate(table.activation_bits):
            drop = table.drop_db.get((weight, activation))
            if drop is None:
                continue
            shade = _shade(drop)
            place = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(place, 1, 1, facecolor=colours(shade), edgecolor="white"))
            axes.text(
                column,
                row,
                decimals(drop, 3 if abs(drop) < 1 else 2),
                color="white" if shade > _DARK else INK,
                fontsize=9,
                horizontalalignment="center",
                verticalalignment="center",
            )
    # Frames come last, so that no neighbour covers them.
    for row, weight in enumerate(table.weight_bits):
        for column, activation in enumerate(table.activation_bits):
            if (weight, activation) in frontier:
                inner = (column - 0.44, row - 0.41)
                axes.add_patch(
                    Rectangle(inner, 0.88, 0.82, fill=False, edgecolor=INK, linewidth=1.6)
                )
    _draw_axes(axes, table)


def _draw_axes(axes: Axes, table: WidthTable) -> None:
    axes.set_xlim(-0.5, len(table.activation_bits) - 0.5)
    axes.set_ylim(len(table.weight_bits) - 0.5, -0.5)
    names = ["float" if bits is None else str(bits) for bits in table.activation_bits]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(table.weight_bits)), [str(bits) for bits in table.weight_bits])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("activation bits")
    axes.set_ylabel("weight bits")
    axes.set_title(
        f"{table.title}: drop against float, dB\n"
        "framed: less than every pair of as many bit operations or fewer",
        fontsize=10,
    )


def _shade(drop_db: float) -> float:
    """0 to 1, on a logarithmic scale."""
    if not math.isfinite(drop_db):
        return 1.0
    limited = min(max(drop_db, _LEAST_DB), _MOST_DB)
    return math.log(limited / _LEAST_DB) / math.log(_MOST_DB / _LEAST_DB)
