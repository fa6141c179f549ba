from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from quantisp.training import frequency_loss

# The mean magnitude of a complex normal number of variance 1.
RAYLEIGH_MEAN = math.sqrt(math.pi) / 2
# White noise falls to 1/2 and 1/4 under means of 2x2 and 4x4.
WHITE = RAYLEIGH_MEAN * (1 + 1 / 2 + 1 / 4) / 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.unit
def test_equal_pictures_cost_nothing() -> None:
    picture = noise(2, 3, 16, 16)
    assert float(frequency_loss(picture, picture.clone())) == 0.0


@pytest.mark.unit
@pytest.mark.parametrize("px", [32, 64, 128])
@pytest.mark.parametrize("sigma", [1e-3, 0.2])
def test_white_error_costs_the_same_at_every_patch_size(px: int, sigma: float) -> None:
    reference = torch.full((8, 3, px, px), 0.5)
    loss = frequency_loss(reference + sigma * noise(8, 3, px, px), reference)
    assert float(loss) == pytest.approx(WHITE * sigma, rel=0.02)
    # Of the size of the L1 loss, which is 0.80 sigma: no factor grows with the patch.
    assert 0.5 < float(loss) / (sigma * math.sqrt(2 / math.pi)) < 1.0


@pytest.mark.unit
def test_without_the_ortho_norm_the_size_would_matter() -> None:
    small, large = (float(torch.fft.rfft2(noise(1, 3, px, px)).abs().mean()) for px in (32, 128))
    assert large / small > 3.5


@pytest.mark.reference
@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 3, 32, 48), (1, 3, 21, 34)])
def test_equals_numpy(shape: tuple[int, ...]) -> None:
    image, reference = noise(*shape).double().numpy(), noise(*shape, seed=1).double().numpy()
    expected = []
    for scale in (1, 2, 4):
        rows, columns = shape[2] // scale, shape[3] // scale
        blocks = [
            plane[:, :, : rows * scale, : columns * scale]
            .reshape(*shape[:2], rows, scale, columns, scale)
            .mean(axis=(3, 5))
            for plane in (image, reference)
        ]
        spectra = [np.fft.rfft2(block, norm="ortho") for block in blocks]
        expected.append(np.abs(spectra[0] - spectra[1]).mean())
    ours = frequency_loss(noise(*shape), noise(*shape, seed=1))
    assert float(ours) == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.unit
def test_is_computed_in_float32_and_has_a_gradient() -> None:
    image = noise(1, 3, 16, 16).to(torch.bfloat16).requires_grad_()
    loss = frequency_loss(image, torch.zeros(1, 3, 16, 16, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
    loss.backward()
    assert image.grad is not None
    assert bool(torch.isfinite(image.grad).all())
    assert bool((image.grad != 0).any())
