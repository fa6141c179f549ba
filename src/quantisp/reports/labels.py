"""Names beside points of a figure, where they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

__all__ = ["label_points"]

_RIGHT_PT, _UP_PT = 6.0, 9.0
# What a name may lie beside, the best first: signs of the offset to the right and upwards.
_SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1), (0, 2), (0, -2))
_HORIZONTAL: dict[int, Literal["left", "center", "right"]] = {1: "left", 0: "center", -1: "right"}
# In points of lines that are covered: another name, or what sticks out of the axes.
_COVERED = 1000
# Each straight piece of a line counts as so many points.
_PIECES = 100


def label_points(axes: Axes, names: Sequence[tuple[str, float, float]]) -> None:
    """Write each name at the side of its point that is free, or covers least.

    Args:
        axes: with all lines and markers, of which there are some; its limits stay.
        names: and the points in units of the axes.
    """
    import numpy as np

    # Else they would be known when the figure is drawn.
    axes.get_xlim()
    axes.get_ylim()
    obstacles = np.concatenate([_drawn(line) for line in axes.lines])
    taken: list[Bbox] = []
    # Names go to the right of their points if they can: from the last, each finds that side free.
    for name, x, y in sorted(names, key=lambda named: named[1:], reverse=True):
        note = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=7)

        def covered(side: tuple[int, int], note: Annotation = note) -> int:
            box = _moved(note, side)
            hidden = sum(bool(box.contains(*point)) for point in obstacles)
            met = sum(bool(box.overlaps(other)) for other in taken)
            return hidden + _COVERED * (met + (not _within(box, axes.get_window_extent())))

        taken.append(_moved(note, min(_SIDES, key=covered)))


def _drawn(line: Line2D) -> NDArray[np.float64]:
    import numpy as np

    path = line.get_transform().transform_path(line.get_path())
    return np.asarray((path.interpolated(_PIECES) if line.get_linewidth() else path).vertices)


def _moved(note: Annotation, side: tuple[int, int]) -> Bbox:
    right, up = side
    note.set_position((_RIGHT_PT * right, _UP_PT * up))
    note.set_horizontalalignment(_HORIZONTAL[right])
    note.set_verticalalignment("center")
    return note.get_window_extent()


def _within(box: Bbox, frame: Bbox) -> bool:
    return all(frame.contains(*corner) for corner in (box.min, box.max))
