"""A model's quality over a set of pictures."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import nn

from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import read_picture
from quantisp.evaluation.measure import measure
from quantisp.evaluation.pictures import StudyPicture
from quantisp.inference import prepare, restore
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
        on_progress: called with the number of pictures restored, and of all.
    """
    network = prepare(copy.deepcopy(model), device)
    images: dict[str, ImageQuality] = {}
    for picture in pictures:
        truth = read_picture(picture.path).tensor()
        measured = measure(restore(network, mosaic(truth, pattern)), truth)
        images[picture.name] = ImageQuality(
            psnr_db=measured.psnr_db,
            psnr_crop10_db=measured.psnr_crop10_db,
            ssim=measured.ssim,
        )
        if on_progress is not None:
            on_progress(len(images), len(pictures))
    return EvaluationResult(
        model=name,
        model_sha256=model_sha256,
        cfa=str(pattern),
        psnr_db=statistics.fmean(q.psnr_db for q in images.values()),
        psnr_crop10_db=statistics.fmean(q.psnr_crop10_db for q in images.values()),
        ssim=statistics.fmean(q.ssim for q in images.values()),
        images=images,
    )
