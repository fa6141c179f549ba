"""The same place of a picture at several settings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Crop", "CropPanel"]


@dataclass(frozen=True, kw_only=True)
class CropPanel:
    """One setting's view of a crop.

    Args:
        label: such as ``4 bits, rtn`` or ``float``.
        psnr_db: of the crop alone.
        rgb: height x width x 3 bytes, row by row.
        error: height x width bytes: the largest absolute error over R, G, B, in 8-bit steps.
    """

    label: str
    psnr_db: float
    rgb: bytes
    error: bytes


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The same place of a picture, as it is and at several settings."""

    image: str
    top: int
    left: int
    height: int
    width: int
    truth: bytes
    panels: tuple[CropPanel, ...]
