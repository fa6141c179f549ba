from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from quantisp.errors import SettingError
from quantisp.metrics import (
    TILE_PX,
    mean_squared_error,
    psnr_db,
    rounded_to_8_bits,
    tile_squared_errors,
    tile_starts,
)


def random_pair(*shape: int, sigma: float = 0.03) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    reference = torch.rand(shape, generator=generator)
    return (reference + sigma * torch.randn(shape, generator=generator)).clamp(0, 1), reference


@pytest.mark.reference
@pytest.mark.parametrize("sigma", [1e-4, 0.03, 0.5])
def test_psnr_equals_torchmetrics_and_skimage(sigma: float) -> None:
    image, reference = random_pair(1, 3, 37, 50, sigma=sigma)
    ours = psnr_db(mean_squared_error(image, reference))
    theirs = torchmetrics_psnr(
        image.double(), reference.double(), data_range=1.0, dim=(1, 2, 3), reduction="none"
    )
    # torchmetrics takes its logarithms in float32.
    assert ours == pytest.approx(float(theirs), abs=1e-5)
    assert ours == pytest.approx(
        skimage_psnr(reference.double().numpy(), image.double().numpy(), data_range=1.0), abs=1e-9
    )


@pytest.mark.unit
def test_a_border_is_left_out_on_all_four_sides() -> None:
    reference = torch.zeros(1, 3, 30, 40)
    image = torch.ones(1, 3, 30, 40)
    image[:, :, 10:-10, 10:-10] = 0.0
    assert mean_squared_error(image, reference, border_px=10) == 0.0
    assert mean_squared_error(image, reference, border_px=9) > 0.0
    assert mean_squared_error(image, reference) == pytest.approx(1.0 - 10 * 20 / (30 * 40))


@pytest.mark.unit
@pytest.mark.parametrize("size", [(20, 40), (40, 19), (5, 5)])
def test_a_border_that_leaves_nothing_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SettingError, match="border of 10 px"):
        mean_squared_error(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size), border_px=10)


@pytest.mark.unit
@pytest.mark.usefixtures("without_shape_checks")
def test_pictures_that_would_broadcast_are_refused() -> None:
    with pytest.raises(SettingError, match="one size"):
        mean_squared_error(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))


@pytest.mark.unit
def test_equal_pictures_are_infinitely_good() -> None:
    picture = torch.rand(1, 3, 8, 8)
    assert psnr_db(mean_squared_error(picture, picture)) == math.inf
    assert psnr_db(1.0) == 0.0


@pytest.mark.unit
def test_the_mean_is_taken_in_float64() -> None:
    # In float32 the square of this difference, summed over 300 000 samples, has an error of 1e-6.
    image, reference = torch.full((1, 3, 320, 320), 0.5), torch.full((1, 3, 320, 320), 0.4999)
    step = float(image[0, 0, 0, 0].double() - reference[0, 0, 0, 0].double())
    assert mean_squared_error(image, reference) == pytest.approx(step**2, rel=1e-12)


@pytest.mark.unit
def test_rounding_to_8_bits_gives_what_a_file_would_hold() -> None:
    values = torch.cat([torch.linspace(-0.2, 1.2, 10_001), torch.tensor([-math.inf, math.inf])])
    stored = np.rint(np.clip(values.numpy(), 0, 1) * np.float32(255)).astype(np.uint8)
    rounded = rounded_to_8_bits(values)
    assert torch.equal(rounded, torch.from_numpy(stored).float() / 255)
    assert torch.equal(rounded_to_8_bits(rounded), rounded)
    assert set(stored.tolist()) == set(range(256))


@pytest.mark.property
@given(st.integers(1, 700))
def test_tiles_cover_an_edge_and_end_with_it(size_px: int) -> None:
    starts = tile_starts(size_px)
    covered = {p for start in starts for p in range(start, min(start + TILE_PX, size_px))}
    assert covered == set(range(size_px))
    assert starts[-1] == max(size_px - TILE_PX, 0)
    assert len(starts) == math.ceil(size_px / TILE_PX)
    assert starts[:-1] == [TILE_PX * i for i in range(len(starts) - 1)]


@pytest.mark.unit
def test_the_last_tile_is_shifted_inwards() -> None:
    image, reference = random_pair(1, 3, 300, 200)
    errors = tile_squared_errors(image, reference)
    assert errors.shape == (3, 2)
    assert errors.dtype == torch.float64
    for row, y in enumerate((0, 128, 172)):
        for column, x in enumerate((0, 72)):
            tile = (..., slice(y, y + 128), slice(x, x + 128))
            expected = mean_squared_error(image[tile], reference[tile])
            assert float(errors[row, column]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.unit
@pytest.mark.parametrize("size", [(1, 1), (60, 90), (128, 128)])
def test_a_small_picture_is_one_tile(size: tuple[int, int]) -> None:
    image, reference = random_pair(1, 3, *size)
    errors = tile_squared_errors(image, reference)
    assert errors.shape == (1, 1)
    assert float(errors) == pytest.approx(mean_squared_error(image, reference), rel=1e-12)


@pytest.mark.unit
def test_a_spoilt_corner_spoils_only_its_tiles() -> None:
    image = torch.zeros(1, 3, 256, 256)
    image[:, :, -1, -1] = 1.0
    worst = tile_squared_errors(image, torch.zeros(1, 3, 256, 256))
    assert (worst > 0).tolist() == [[False, False], [False, True]]
