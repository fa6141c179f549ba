"""Pictures of any size in bounded memory: tiles that overlap by the receptive field.

A tile is restored from its place and all that it depends on, beginning in the CFA's phase, as
:func:`~quantisp.inference.restore_window` does it; so the joined tiles are the whole picture. To
the last bit, where a convolution adds up in the same order at every size: the packaged networks
and all methods without training, on the CPU. Where a library chooses among kernels by size (oneDNN
with a few channels, cuDNN), to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.inference.memory import return_freed_memory
from quantisp.inference.receptive_field import ReceptiveField
from quantisp.inference.runner import Window, restore

__all__ = ["input_window", "restore_tiled", "tile_windows"]


def tile_windows(height: int, width: int, tile_px: int) -> Iterator[Window]:
    """The tiles of a picture, row by row; the last ones of a row or column may be smaller."""
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            yield Window(
                top=top,
                left=left,
                height=min(tile_px, height - top),
                width=min(tile_px, width - left),
            )


def input_window(window: Window, field: ReceptiveField, height: int, width: int) -> Window:
    """What a window of the output depends on, from a whole stride on, within the picture."""
    bottom = min(window.top + window.height + field.below_px, height)
    right = min(window.left + window.width + field.right_px, width)
    top, left = window.top - field.above_px, window.left - field.left_px
    # At least a stride high and wide, for a mosaic has to hold a period.
    top, left = min(top, bottom - field.stride_px), min(left, right - field.stride_px)
    top, left = max(top, 0), max(left, 0)
    top, left = (px // field.stride_px * field.stride_px for px in (top, left))
    return Window(top=top, left=left, height=bottom - top, width=right - left)


def restore_tiled(
    model: nn.Module,
    read: Callable[[Window], Float[Tensor, "1 c h w"]],
    size: tuple[int, int],
    *,
    field: ReceptiveField | None,
    tile_px: int,
) -> Iterator[tuple[Window, Float[Tensor, "1 3 h w"]]]:
    """RGB of a picture, tile by tile; only one tile and its surroundings are in memory.

    Args:
        model: as ``prepare`` returns it; it gives as many pixels as it takes.
        read: the mosaic of a window.
        size: height and width of the picture, in px.
        field: what an output pixel depends on; None restores the whole at once.
        tile_px: side of a tile.

    Raises:
        SettingError: tiles of less than 1 px.
    """
    if tile_px < 1:
        raise SettingError(f"expected tiles of 1 px or more, found {tile_px}: correct --tile")
    height, width = size
    if field is None:
        whole = Window(top=0, left=0, height=height, width=width)
        yield whole, restore(model, read(whole))
        return
    for window in tile_windows(height, width, tile_px):
        source = input_window(window, field, height, width)
        part = restore(model, read(source))
        y, x = window.top - source.top, window.left - source.left
        inside = part[:, :, y : y + window.height, x : x + window.width].clone()
        del part
        # Once a row: tiles at the edges leave holes of other sizes.
        if window.left + window.width == width:
            return_freed_memory()
        yield window, inside
