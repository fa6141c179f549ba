"""Picture quality, on tensors."""

from quantisp.metrics.psnr import (
    TILE_PX,
    mean_squared_error,
    psnr_db,
    rounded_to_8_bits,
    tile_squared_errors,
    tile_starts,
)
from quantisp.metrics.ssim import ssim

__all__ = [
    "TILE_PX",
    "mean_squared_error",
    "psnr_db",
    "rounded_to_8_bits",
    "ssim",
    "tile_squared_errors",
    "tile_starts",
]
