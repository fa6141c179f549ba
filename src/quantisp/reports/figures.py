"""The study's figure: quality against weight bits, and what each width costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantisp.records import StudyResult
from quantisp.reports import paper
from quantisp.reports.series import Series, decimals, widest_series
from quantisp.reports.style import COLOURS, GREY, INK, MARKERS, ImageFormat, drawing_style, encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DROP_FLOOR_DB", "psnr_figure"]

DROP_FLOOR_DB = 1e-3
"""Smaller drops, and gains, are drawn here: a logarithmic axis has no zero."""

_WIDTH_IN = 8.0
_PANEL_IN = 3.3
_BELOW_IN = 0.55
_TITLE_IN = 0.49
_LEGEND_LINE_IN = 0.22


def psnr_figure(result: StudyResult, image_format: ImageFormat) -> bytes:
    """Left, PSNR against weight bits; right, the drop against float on a logarithmic axis.

    A ring marks the fewest bits that are enough; the paper's curve is drawn where the pictures are
    Kodak's. Of several activation widths the widest is drawn. Equal results give equal bytes.

    Args:
        result: the study.
        image_format: ``svg``, or ``png`` 1200 px wide; the height grows with the legend.
    """
    from matplotlib.figure import Figure

    curves = _curves(result)
    above_in = _TITLE_IN + _LEGEND_LINE_IN * len(curves)
    height_in = above_in + _PANEL_IN + _BELOW_IN
    with drawing_style():
        figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=150)
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(
            left=0.06,
            right=0.985,
            bottom=_BELOW_IN / height_in,
            top=1 - above_in / height_in,
            wspace=0.22,
        )
        _draw_psnr(left, curves, result.float.psnr_db)
        _draw_drop(right, curves, sorted({choice.within_db for choice in result.recommendation}))
        for axes in (left, right):
            axes.set_xticks(sorted({bits for curve in curves for bits in curve.bits}))
            axes.set_xlabel("weight bits")
            axes.grid(visible=True, axis="y")
        _draw_legend(figure, left)
        return encoded(figure, image_format)


@dataclass(frozen=True, kw_only=True)
class _Curve:
    label: str
    bits: tuple[int, ...]
    psnr_db: tuple[float, ...]
    drop_db: tuple[float, ...]
    chosen_bits: int | None
    colour: str
    marker: str = ""
    width: float = 1.6


def _curves(result: StudyResult) -> list[_Curve]:
    curves = [_series_curve(one, index) for index, one in enumerate(widest_series(result))]
    if result.is_kodak:
        tightest = min((choice.within_db for choice in result.recommendation), default=None)
        curves.insert(0, _paper_curve(tightest))
    return curves


def _series_curve(series: Series, index: int) -> _Curve:
    within_db = None if series.recommendation is None else series.recommendation.within_db
    return _Curve(
        label=_label(series.label, series.chosen_bits, within_db),
        bits=tuple(row.width for row in series.rows),
        psnr_db=tuple(row.psnr_db for row in series.rows),
        drop_db=tuple(row.drop_db for row in series.rows),
        chosen_bits=series.chosen_bits,
        colour=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
    )


def _paper_curve(within_db: float | None) -> _Curve:
    chosen_bits = None if within_db is None else paper.paper_bits_within(within_db)
    return _Curve(
        label=_label("the paper's network", chosen_bits, within_db),
        bits=tuple(paper.PSNR_DB),
        psnr_db=tuple(paper.PSNR_DB.values()),
        drop_db=tuple(map(paper.paper_drop_db, paper.PSNR_DB)),
        chosen_bits=chosen_bits,
        colour=GREY,
        width=2.4,
    )


def _label(name: str, bits: int | None, within_db: float | None) -> str:
    if within_db is None:
        return name
    return f"{name}: {'no width' if bits is None else f'{bits} bits'} within {within_db:g} dB"


def _draw_psnr(axes: Axes, curves: Sequence[_Curve], float_db: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("PSNR, dB")
    axes.margins(y=0.08)  # room for the label of the float line
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    for curve in curves:
        _draw_curve(axes, curve, curve.psnr_db)
    if math.isfinite(float_db):
        axes.axhline(float_db, color=INK, linewidth=1, dashes=(5, 3), zorder=1.5)
        axes.annotate(
            f"float {decimals(float_db, 2)}",
            # Below the line and on the right, where curves end close to it, there is room.
            (1, float_db),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-3, -5),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
        )


def _draw_drop(axes: Axes, curves: Sequence[_Curve], within_db: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_title("drop against float, dB")
    axes.set_yscale("log")
    for curve in curves:
        _draw_curve(axes, curve, [max(drop, DROP_FLOOR_DB) for drop in curve.drop_db])
        _draw_floor(axes, curve)
    thresholds = [within for within in within_db if within >= DROP_FLOOR_DB]
    for within in thresholds:
        _draw_threshold(axes, within)
    drops = [drop for curve in curves for drop in curve.drop_db if math.isfinite(drop)]
    top = 2 * max([*drops, *thresholds, 0.1])
    axes.set_ylim(DROP_FLOOR_DB / 1.5, top)
    decades = range(round(math.log10(DROP_FLOOR_DB)), math.floor(math.log10(top)) + 1)
    axes.yaxis.set_major_locator(FixedLocator([10.0**decade for decade in decades]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_drop_tick))


def _draw_curve(axes: Axes, curve: _Curve, values: Sequence[float]) -> None:
    finite = {
        bits: value for bits, value in zip(curve.bits, values, strict=True) if math.isfinite(value)
    }
    axes.plot(
        list(finite),
        list(finite.values()),
        color=curve.colour,
        marker=curve.marker,
        markersize=5,
        linewidth=curve.width,
        label=curve.label,
    )
    if curve.chosen_bits in finite:
        axes.plot(
            [curve.chosen_bits],
            [finite[curve.chosen_bits]],
            color=curve.colour,
            marker="o",
            markersize=12,
            markerfacecolor="none",
            markeredgewidth=1.6,
        )


def _draw_floor(axes: Axes, curve: _Curve) -> None:
    # Hollow: the drop is this or less.
    lowest = [
        bits
        for bits, drop in zip(curve.bits, curve.drop_db, strict=True)
        if drop <= DROP_FLOOR_DB and math.isfinite(drop)
    ]
    axes.plot(
        lowest,
        [DROP_FLOOR_DB] * len(lowest),
        color=curve.colour,
        marker=curve.marker,
        markersize=5,
        markerfacecolor="white",
        linestyle="none",
    )


def _draw_threshold(axes: Axes, within_db: float) -> None:
    axes.axhline(within_db, color=INK, linewidth=1, dashes=(1, 2), zorder=1.5)
    axes.annotate(
        f"{within_db:g} dB",
        (1, within_db),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        horizontalalignment="right",
        fontsize=9,
    )


def _draw_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.055, 1 - 0.1 / figure.get_figheight()),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=2.4,
    )


def _drop_tick(drop_db: float, _position: int | None) -> str:
    return f"≤{drop_db:g}" if drop_db <= DROP_FLOOR_DB else f"{drop_db:g}"
