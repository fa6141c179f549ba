"""A model's quality over a set of pictures."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn

from quantisp.errors import SettingError
from quantisp.evaluation.degradation import Degradation
from quantisp.evaluation.measure import BORDER_PX, capped_psnr_db, measure
from quantisp.evaluation.pictures import StudyPicture, load_sample
from quantisp.evaluation.restoration import restored_sample
from quantisp.inference import prepare
from quantisp.metrics import mean_squared_error, rounded_to_8_bits
from quantisp.records import EvaluationResult, ImageQuality

__all__ = ["evaluate_pictures"]


def evaluate_pictures(
    *,
    name: str,
    model: nn.Module,
    model_sha256: str,
    degradation: Degradation,
    pictures: Sequence[StudyPicture],
    device: torch.device,
    border_px: int = BORDER_PX,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Degrade each picture, restore it, and compare, one at a time.

    Args:
        name: of the model, for people.
        model: undoes the degradation; it is not changed.
        model_sha256: the digest of its weights.
        degradation: what is done to each picture.
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
        sample = load_sample(picture, degradation)
        truth, restored = sample.truth, restored_sample(network, sample)
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
        cfa=None if degradation.pattern is None else str(degradation.pattern),
        degradation=degradation.name,
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
