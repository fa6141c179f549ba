"""How every figure looks, and how it becomes bytes that are the same from run to run."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FAINT", "GREY", "INK", "MARKERS", "ImageFormat", "drawing_style", "encoded"]

ImageFormat = Literal["svg", "png"]

INK = "#1f2328"
GREY = "#8c959f"
FAINT = "#d8dee4"
# Okabe and Ito's palette, told apart by colour-blind readers too; markers carry it into grey, and
# being one more than the colours, do not meet the same colour again for 42 series.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")

_STYLE: dict[Any, object] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 10,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "quantisp",
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def drawing_style() -> Generator[None]:
    """Draw inside this: matplotlib's defaults and our style, whatever the user's own settings."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def encoded(figure: Figure, image_format: ImageFormat) -> bytes:
    """The figure as a file, free of dates and versions; call it inside :func:`drawing_style`."""
    unstamped = {"Date": None, "Creator": None} if image_format == "svg" else {"Software": None}
    file = io.BytesIO()
    figure.savefig(file, format=image_format, dpi=figure.dpi, metadata=unstamped)
    return file.getvalue()
