"""Peak signal-to-noise ratio, on pictures in [0, 1]."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.errors import SettingError

__all__ = [
    "TILE_PX",
    "mean_squared_error",
    "psnr_db",
    "rounded_to_8_bits",
    "tile_squared_errors",
    "tile_starts",
]

TILE_PX = 128


def rounded_to_8_bits(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Clipped to [0, 1] and rounded to steps of 1/255, as a file would hold it."""
    return image.clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def mean_squared_error(
    image: Float[Tensor, "n c h w"], reference: Float[Tensor, "n c h w"], *, border_px: int = 0
) -> float:
    """Over all pixels and channels, in float64; a border of ``border_px`` is left out.

    Raises:
        SettingError: the shapes differ, or nothing is left inside the border.
    """
    if image.shape != reference.shape:
        raise SettingError(
            f"expected two pictures of one size, found {tuple(image.shape)} and "
            f"{tuple(reference.shape)}: crop or resize one"
        )
    if border_px:
        inside = slice(border_px, -border_px)
        image, reference = image[:, :, inside, inside], reference[:, :, inside, inside]
    if image.numel() == 0:
        raise SettingError(
            f"nothing is left inside a border of {border_px} px: use a larger picture"
        )
    return float((image.double() - reference.double()).square().mean())


def psnr_db(mse: float) -> float:
    """10 log10(1 / mse); infinite for equal pictures."""
    return math.inf if mse == 0.0 else -10.0 * math.log10(mse)


def tile_squared_errors(
    image: Float[Tensor, "1 c h w"], reference: Float[Tensor, "1 c h w"]
) -> Float[Tensor, "rows columns"]:
    """The mean squared error of each 128x128 tile, float64.

    The last row and column of tiles are shifted inwards to end at the picture's edge; a picture
    smaller than a tile is one tile.
    """
    errors = (image.double() - reference.double()).square().mean(dim=(0, 1))
    rows, columns = (tile_starts(size) for size in errors.shape)
    return torch.stack(
        [
            torch.stack([errors[y : y + TILE_PX, x : x + TILE_PX].mean() for x in columns])
            for y in rows
        ]
    )


def tile_starts(size_px: int) -> list[int]:
    """Where the tiles of :func:`tile_squared_errors` begin along an edge of ``size_px``."""
    last = max(size_px - TILE_PX, 0)
    return sorted({min(start, last) for start in range(0, size_px, TILE_PX)})
