"""A model's quality over a set of pictures."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn

from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import read_picture
from quantisp.errors import SettingError
from quantisp.evaluation.measure import BORDER_PX, capped_psnr_db, measure
from quantisp.evaluation.pictures import StudyPicture
from quantisp.inference import prepare, restore
from quantisp.metrics import mean_squared_error, rounded_to_8_bits
from quantisp.records import EvaluationResult, ImageQuality

__all__ = ["evaluate_pictures"]


def evaluate_pictures(
    *,
    name: str,
    model: nn.Module,
    model_sha256: str,
    pattern: CFAPattern,
    pictures: Sequence[StudyPicture],
    device: torch.device,
    border_px: int = BORDER_PX,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Sample each picture through the CFA, restore it, and compare, one at a time.

    Args:
        name: of the model, for people.
        model: maps a mosaic (n, 1, h, w) to RGB (n, 3, h, w); it is not changed.
        model_sha256: the digest of its weights.
        pattern: its CFA.
        pictures: at least one.
        device: where the network runs.
        border_px: left out of one of the figures.
        on_progress: called with the number of pictures restored, and of all.

    Raises:
        SettingError: the border leaves nothing of a picture.
    """
    _check_border(border_px, pictures)
    network = prepare(copy.deepcopy(model), device)
    images: dict[str, ImageQuality] = {}
    for picture in pictures:
        truth = read_picture(picture.path).tensor()
        restored = restore(network, mosaic(truth, pattern))
        measured = measure(restored, truth)
        inside = mean_squared_error(rounded_to_8_bits(restored), truth, border_px=border_px)
        images[picture.name] = ImageQuality(
            psnr_db=measured.psnr_db,
            psnr_cropped_db=capped_psnr_db(inside),
            ssim=measured.ssim,
        )
        if on_progress is not None:
            on_progress(len(images), len(pictures))
    return EvaluationResult(
        model=name,
        model_sha256=model_sha256,
        cfa=str(pattern),
        border_px=border_px,
        psnr_db=statistics.fmean(q.psnr_db for q in images.values()),
        psnr_cropped_db=statistics.fmean(q.psnr_cropped_db for q in images.values()),
        ssim=statistics.fmean(q.ssim for q in images.values()),
        images=images,
    )


def _check_border(border_px: int, pictures: Sequence[StudyPicture]) -> None:
    least = min(min(picture.height, picture.width) for picture in pictures)
    if not 0 <= 2 * border_px < least:
        raise SettingError(
            f"expected a border of 0 to {(least - 1) // 2} px, for the smallest picture is "
            f"{least} px high or wide, found {border_px}: correct --border"
        )
