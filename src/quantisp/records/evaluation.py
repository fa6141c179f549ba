"""A model's quality over a set of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from quantisp.records.document import document

__all__ = ["EvaluationResult", "ImageQuality"]


@dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """How close one restored picture is to the truth. PSNR is 100 dB for equal pictures.

    Args:
        psnr_db: of the whole picture.
        psnr_cropped_db: without a border.
        ssim: structural similarity.
    """

    psnr_db: float
    psnr_cropped_db: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """A model's quality over a set of pictures: each one, and the means.

    Args:
        cfa: what the pictures were sampled through; None where it was no mosaic.
        degradation: what was done to them, such as ``mosaic`` or ``noise:25``.
        border_px: what ``psnr_cropped_db`` leaves out at each side.
    """

    model: str
    model_sha256: str
    cfa: str | None
    degradation: str
    border_px: int
    psnr_db: float
    psnr_cropped_db: float
    ssim: float
    images: Mapping[str, ImageQuality]

    def to_json(self) -> str:
        """One JSON document, ending in a newline."""
        return document(asdict(self))
