"""PSNR against bit operations and against bytes, with the knee."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantisp.records import StudyResult
from quantisp.reports.costs import CostPoint, cost_points, knee
from quantisp.reports.labels import label_points
from quantisp.reports.series import widest_series
from quantisp.reports.style import COLOURS, INK, MARKERS, ImageFormat, drawing_style, encoded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Locator

__all__ = ["cost_figure", "cost_ticks"]

_WIDTH_IN = 8.0
_PANEL_IN = 3.3
# Of each of the two, of what the figure's margins leave.
_PANEL_WIDTH_IN = 3.4
_BELOW_IN = 0.55
_TITLE_IN = 0.49
_LEGEND_LINE_IN = 0.22
_SIDE_MARGIN = 0.14
# Of labels beside each other.
_LABEL_IN = 0.5
# Times powers of ten, the finest first.
_STEPS = ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))


def cost_figure(result: StudyResult, image_format: ImageFormat) -> bytes | None:
    """Left, PSNR against kBOP/px; right, against kB of weights; both on logarithmic axes.

    Names stand at mixed plans and weight formats; a ring marks the knee. Equal results give equal
    bytes; None where no cost is known.

    Args:
        result: the study.
        image_format: ``svg`` or ``png``.
    """
    from matplotlib.figure import Figure

    points = [point for point in cost_points(result) if math.isfinite(point.psnr_db)]
    if not points:
        return None
    groups = list(dict.fromkeys(point.group for point in points))
    # Series look as they do beside one another in the figure of PSNR against bits.
    looks = [series.label for series in widest_series(result)]
    looks += [group for group in groups if group not in looks]
    best = knee(result)
    above_in = _TITLE_IN + _LEGEND_LINE_IN * (len(groups) + 1)
    height_in = above_in + _PANEL_IN + _BELOW_IN
    with drawing_style():
        figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=150)
        left, right = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(
            left=0.08,
            right=0.965,
            bottom=_BELOW_IN / height_in,
            top=1 - above_in / height_in,
            wspace=0.08,
        )
        kilobops = [point.bops_per_px / 1000 for point in points]
        kilobytes = [point.weight_bytes / 1000 for point in points]
        _draw(left, points, looks, kilobops)
        _draw(right, points, looks, kilobytes)
        frontier = [point for point in points if point.on_frontier]
        left.plot(
            [point.bops_per_px / 1000 for point in frontier],
            [point.psnr_db for point in frontier],
            color=INK,
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            zorder=3,
            label="frontier" if best is None else "frontier; a ring at the knee",
        )
        if best is not None and best.bops_per_px is not None:
            left.plot(
                [best.bops_per_px / 1000],
                [best.psnr_db],
                color=INK,
                marker="o",
                markersize=13,
                markerfacecolor="none",
                markeredgewidth=1.6,
            )
        _label(left, points, kilobops)
        _label(right, points, kilobytes)
        left.set_title("PSNR, dB")
        left.set_xlabel("bit operations, kBOP/px")
        right.set_xlabel("weights, kB")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(0.075, 1 - 0.1 / height_in),
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.4,
        )
        return encoded(figure, image_format)


def _draw(
    axes: Axes, points: Sequence[CostPoint], looks: Sequence[str], costs: Sequence[float]
) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.margins(x=_SIDE_MARGIN, y=0.08)
    axes.grid(visible=True, axis="y")
    axes.xaxis.set_major_locator(cost_ticks(costs))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.xaxis.set_minor_locator(NullLocator())
    for index, group in enumerate(looks):
        members = [
            (cost, point) for cost, point in zip(costs, points, strict=True) if point.group == group
        ]
        if not members:
            continue
        members.sort(key=lambda member: (member[0], member[1].psnr_db))
        axes.plot(
            [cost for cost, _ in members],
            [point.psnr_db for _, point in members],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=0 if group == "formats" else 1.4,
            label="weight formats" if group == "formats" else group,
        )


def cost_ticks(costs: Sequence[float]) -> Locator:
    """As many as have room for their labels."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = min(costs), max(costs)
    if high < 2 * low:
        # There a logarithmic axis is nearly even.
        return MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10])
    decades = (1 + 2 * _SIDE_MARGIN) * math.log10(high / low)

    def room_in(steps: tuple[float, ...]) -> float:
        gaps = [math.log10(b / a) for a, b in zip(steps, (*steps[1:], 10.0), strict=True)]
        return min(gaps) / decades * _PANEL_WIDTH_IN

    fitting = (steps for steps in _STEPS if room_in(steps) >= _LABEL_IN)
    return LogLocator(base=10, subs=next(fitting, _STEPS[-1]))


def _label(axes: Axes, points: Sequence[CostPoint], costs: Sequence[float]) -> None:
    named = [
        (point.label, cost, point.psnr_db)
        for cost, point in zip(costs, points, strict=True)
        if point.label
    ]
    label_points(axes, named)


def _thousands(value: float, _position: int | None) -> str:
    return f"{value:,.0f}"
