"""Structural similarity, on pictures in [0, 1]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quantisp.errors import SettingError

__all__ = ["ssim"]

WINDOW_PX = 11
SIGMA_PX = 1.5
C1 = 0.01**2
C2 = 0.03**2


def ssim(image: Float[Tensor, "n c h w"], reference: Float[Tensor, "n c h w"]) -> float:
    """The mean structural similarity over pixels and channels; 1 for equal pictures.

    The statistics are Gaussian-weighted (11x11, sigma 1.5 px) around every pixel; beyond its
    edges a picture is mirrored. K1 = 0.01, K2 = 0.03, data range 1.

    Args:
        image: in [0, 1], at least 11 px high and wide; not clipped here.
        reference: of the same size; the two may be exchanged.
    Raises:
        SettingError: the shapes differ, or the pictures are smaller than the window.
    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", IEEE Trans. Image Processing 13(4), 2004, eq. 13.
    """
    if image.shape != reference.shape:
        raise SettingError(
            f"expected two pictures of one size, found {tuple(image.shape)} and "
            f"{tuple(reference.shape)}: crop or resize one"
        )
    if min(image.shape[2:]) < WINDOW_PX:
        raise SettingError(
            f"SSIM needs pictures of at least {WINDOW_PX}x{WINDOW_PX} px, found "
            f"{image.shape[2]}x{image.shape[3]}: use larger ones"
        )
    # Equation 13 in terms of the sum s = x + y and the difference d = x - y: both of its factors
    # have the form (p - q) / (p + q), which is 1 - q / ((p + q) / 2) of d's share q alone. It takes
    # four filtered planes instead of five, and float32 suffices: where the pictures are close, q is
    # small and exact. A variance does not change when s is centred, but cancels fewer digits.
    image, reference = image.float().contiguous(), reference.float().contiguous()
    total, difference = image + reference - 1.0, image - reference
    planes = torch.cat([total, difference, total * total, difference * difference], dim=1)
    mean_s, mean_d, power_s, power_d = _blurred(planes).chunk(4, dim=1)
    variance_s = (power_s - mean_s.square()).clamp(min=0.0)
    variance_d = (power_d - mean_d.square()).clamp(min=0.0)
    luminance = _similarity((mean_s + 1.0).square(), mean_d.square(), C1)
    structure = _similarity(variance_s, variance_d, C2)
    return float((luminance * structure).mean(dtype=torch.float64))


def _similarity(p: Tensor, q: Tensor, stabiliser: float) -> Tensor:
    """((p - q) / 2 + c) / ((p + q) / 2 + c)."""
    return 1.0 - q / ((p + q) / 2.0 + stabiliser)


def _blurred(planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each plane under the Gaussian window, one axis at a time."""
    radius, channels = WINDOW_PX // 2, planes.shape[1]
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=planes.device)
    window = torch.exp(-0.5 * (offsets / SIGMA_PX).square())
    row = (window / window.sum()).to(planes.dtype).expand(channels, 1, 1, WINDOW_PX).contiguous()
    padded = functional.pad(planes, (radius, radius, radius, radius), mode="reflect")
    columns_done = functional.conv2d(padded, row.transpose(2, 3), groups=channels)
    return functional.conv2d(columns_done, row, groups=channels)
