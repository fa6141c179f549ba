"""How far a run is, and how good its weights are on the validation pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.metrics import mean_squared_error, psnr_db, rounded_to_8_bits
from quantisp.training.domains import shown, validation_input

__all__ = ["CurvePoint", "TrainProgress", "validation_psnr_db"]

# A picture that is restored exactly must not make the mean infinite.
PSNR_CAP_DB = 100.0


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One validation: the mean PSNR of the averaged weights on the validation pictures."""

    step: int
    elapsed_s: float
    loss: float
    psnr_db: float


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Where a run is. ``share`` is 0 at the beginning and 1 at the end."""

    step: int
    share: float
    elapsed_s: float
    loss: float
    learning_rate: float
    patches_per_s: float
    curve: tuple[CurvePoint, ...]


@torch.inference_mode()
def validation_psnr_db(
    model: nn.Module,
    pictures: Sequence[Float[Tensor, "1 3 _ _"]],
    pattern: CFAPattern,
    device: torch.device,
    domain: str = "srgb",
) -> float:
    """The mean PSNR of a network's output, rounded to 8 bits, by which weights are chosen.

    Args:
        model: in evaluation mode, on ``device``.
        pictures: in [0, 1].
        pattern: the CFA at pixel (0, 0) of each.
        device: of the model.
        domain: of its mosaics; those of light are noisy, and compared through sRGB's curve.
    """
    mean = 0.0
    for number, picture in enumerate(pictures):
        rgb = picture.to(device)
        restored = shown(domain, model(validation_input(domain, rgb, pattern, number)))
        mse = mean_squared_error(rounded_to_8_bits(restored), rgb)
        mean += min(psnr_db(mse), PSNR_CAP_DB) / len(pictures)
    return mean
