"""Names beside points cover nothing, where there is room."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from quantisp.reports.labels import label_points

pytestmark = pytest.mark.unit

# Each twice at one place, and a row in which the names are longer than the way to the next.
POINTS = [(1.0, 2.0), (1.0, 2.05), (4.0, 3.0), (4.3, 3.0), (4.6, 3.0), (9.9, 2.8), (9.9, 0.1)]


def crowded() -> tuple[Axes, list[Annotation]]:
    axes = Figure(figsize=(5, 4)).subplots()
    axes.plot([0, 10], [0, 4], label="a line across")
    axes.plot([x for x, _ in POINTS], [y for _, y in POINTS], marker="o", linewidth=0)
    label_points(axes, [(f"a long name {n}", x, y) for n, (x, y) in enumerate(POINTS)])
    notes = [child for child in axes.get_children() if isinstance(child, Annotation)]
    axes.figure.draw_without_rendering()
    return axes, notes


def test_names_cover_neither_names_nor_points_nor_lines():
    axes, notes = crowded()
    assert {note.get_text() for note in notes} == {f"a long name {n}" for n in range(len(POINTS))}
    boxes = [note.get_window_extent() for note in notes]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert not any(box.contains(*axes.transData.transform(point)) for point in POINTS)
        line = axes.transData.transform([(0.01 * n, 0.004 * n) for n in range(1001)])
        assert not any(box.contains(*point) for point in line)
        frame = axes.get_window_extent()
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1


def test_names_stay_beside_their_points():
    axes, notes = crowded()
    for note in notes:
        x, y = axes.transData.transform(POINTS[int(note.get_text().split()[-1])])
        box = note.get_window_extent()
        # 18 points upwards at most, and to the side no farther than the name is long.
        assert abs((box.y0 + box.y1) / 2 - y) < 30
        assert box.x0 - 15 < x < box.x1 + 15


def test_limits_are_known_before_the_figure_is_drawn():
    axes = Figure().subplots()
    axes.plot([100.0, 300.0], [5.0, 6.0], marker="o")
    label_points(axes, [("first", 100.0, 5.0)])
    assert axes.get_xlim()[0] > 50
    assert axes.get_xlim()[1] > 300
