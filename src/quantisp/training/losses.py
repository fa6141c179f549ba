"""What training minimises."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["frequency_loss", "training_loss"]

SCALES = (1, 2, 4)
# The squared error of a typical patch has about 1/64 of the gradient of its absolute error. Equal
# gradients keep the optimizers' running moments valid when the loss changes.
SQUARED_ERROR_WEIGHT = 64.0


def training_loss(
    image: Float[Tensor, "n c h w"],
    reference: Float[Tensor, "n c h w"],
    *,
    late: bool,
    frequency_weight: float,
) -> Float[Tensor, ""]:
    """Absolute error and the frequency loss; in the last phase, squared error.

    Args:
        image, reference: in float32.
        late: whether it is the last phase.
        frequency_weight: of the frequency loss.
    """
    if late:
        return SQUARED_ERROR_WEIGHT * functional.mse_loss(image, reference)
    loss = functional.l1_loss(image, reference)
    return loss + frequency_weight * frequency_loss(image, reference)


def frequency_loss(
    image: Float[Tensor, "n c h w"], reference: Float[Tensor, "n c h w"]
) -> Float[Tensor, ""]:
    """Mean |FFT(image) - FFT(reference)|, ortho-normalised, averaged over scales 1, 1/2 and 1/4.

    Computed in float32, for bf16 has too few digits for a spectrum. With the ortho norm it is of
    the size of the L1 loss at any patch size.

    Source: the frequency loss of Seo et al. 2022; the scales and the norm are ours.
    """
    error = (image - reference).float()
    total = error.new_zeros(())
    for scale in SCALES:
        reduced = functional.avg_pool2d(error, scale) if scale > 1 else error
        # The spectrum is linear, so the difference of spectra is the spectrum of the difference.
        total = total + torch.fft.rfft2(reduced, norm="ortho").abs().mean()
    return total / len(SCALES)
