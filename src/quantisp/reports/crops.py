"""A place of a picture at several widths, and the error there, enlarged pixel by pixel."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantisp.records import Crop
from quantisp.reports.series import decimals
from quantisp.reports.style import drawing_style, encoded

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["ERROR_LIMIT", "crop_figure", "crop_names", "enlargement"]

ERROR_LIMIT = 32
"""The error, in 8-bit steps, at which every map reaches its last colour."""

_DPI = 100
_PANEL_PX = 288
_GAP_PX = 12
_HEAD_PX = 66
_COLOURS = "inferno"


def crop_figure(crop: Crop, truth: str = "truth") -> bytes:
    """A PNG: above, the truth and each panel; below, each panel's error map on one fixed scale.

    Every pixel of the crop becomes a square of :func:`enlargement` pixels, unblended.

    Args:
        crop: what to draw.
        truth: what the errors are against, in a word.
    """
    from matplotlib.figure import Figure

    factor = enlargement(crop)
    width, height = crop.width * factor, crop.height * factor
    columns = 1 + len(crop.panels)
    total_width = columns * (width + _GAP_PX) + _GAP_PX
    total_height = _HEAD_PX + 2 * (height + _GAP_PX)
    with drawing_style():
        figure = Figure(figsize=(total_width / _DPI, total_height / _DPI), dpi=_DPI)
        upper, lower = height + 2 * _GAP_PX, _GAP_PX
        _place(figure, _rgb(crop, crop.truth), factor, _GAP_PX, upper)
        heads = [(truth, "")]
        for index, panel in enumerate(crop.panels, start=1):
            left = _GAP_PX + index * (width + _GAP_PX)
            _place(figure, _rgb(crop, panel.rgb), factor, left, upper)
            _place(figure, _error_colours(crop, panel.error), factor, left, lower)
            heads.append((panel.label, f"{decimals(panel.psnr_db, 2)} dB"))
        _draw_heads(figure, heads, width, upper + height)
        _draw_colour_bar(figure, width, height)
        return encoded(figure, "png")


def enlargement(crop: Crop) -> int:
    """How many times a crop is enlarged: 3 at 96 px, 2 at 128 px."""
    return max(1, round(_PANEL_PX / crop.width))


def _rgb(crop: Crop, pixels: bytes) -> NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(pixels, np.uint8).reshape(crop.height, crop.width, 3)


def _error_colours(crop: Crop, error: bytes) -> NDArray[np.uint8]:
    import matplotlib as mpl
    import numpy as np

    steps = np.frombuffer(error, np.uint8).reshape(crop.height, crop.width)
    colours: Any = mpl.colormaps[_COLOURS](np.minimum(steps / ERROR_LIMIT, 1.0), bytes=True)
    return colours[..., :3]


def _place(figure: Figure, pixels: NDArray[np.uint8], factor: int, left: int, bottom: int) -> None:
    enlarged = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    figure.figimage(enlarged, left, bottom, origin="upper")


def _draw_heads(figure: Figure, heads: list[tuple[str, str]], width: int, bottom: int) -> None:
    total_width, total_height = figure.get_size_inches() * _DPI
    # A character of this font is at most about 0.65 of its size wide.
    size_px = min(22.0, width / (0.65 * max(len(text) for head in heads for text in head)))
    points = 72 * size_px / _DPI
    for index, (label, psnr) in enumerate(heads):
        x = (_GAP_PX + index * (width + _GAP_PX)) / total_width
        figure.text(x, (bottom + 36) / total_height, label, fontsize=points, fontweight="bold")
        figure.text(x, (bottom + 10) / total_height, psnr, fontsize=points)


def _draw_colour_bar(figure: Figure, width: int, height: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    total_width, total_height = figure.get_size_inches() * _DPI
    bar_height = 20
    middle = _GAP_PX + height / 2
    axes = figure.add_axes(
        (
            _GAP_PX / total_width,
            (middle - bar_height / 2) / total_height,
            0.92 * width / total_width,
            bar_height / total_height,
        )
    )
    ticks = range(0, ERROR_LIMIT + 1, ERROR_LIMIT // 4)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, ERROR_LIMIT), _COLOURS),
        cax=axes,
        orientation="horizontal",
        ticks=ticks,
    )
    points = 72 * min(20.0, width / 14) / _DPI
    axes.tick_params(labelsize=points)
    axes.set_xticklabels([*map(str, ticks[:-1]), f"≥{ERROR_LIMIT}"])
    bar.outline.set_visible(False)
    axes.set_title("error, 8-bit steps", fontsize=points, pad=10)


def crop_names(crops: Sequence[Crop]) -> dict[str, Crop]:
    """The file of each crop; no two are the same."""
    named: dict[str, Crop] = {}
    for crop in crops:
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", crop.image).strip("-")[:60] or "picture"
        name = f"crop-{safe}-{crop.top}-{crop.left}"
        # Names that differ only in letters that not every system has would meet.
        same = sum(other.startswith(name) for other in named)
        named[f"{name}-{same + 1}.png" if same else f"{name}.png"] = crop
    return named
