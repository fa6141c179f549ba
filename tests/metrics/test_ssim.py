from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from quantisp.data import read_picture
from quantisp.errors import SettingError
from quantisp.metrics import ssim

# The oracle, in float64: in float32 it is itself off by up to 1e-5.
Pair = tuple[Tensor, Tensor]


def oracle(image: Tensor, reference: Tensor) -> float:
    value = structural_similarity_index_measure(image.double(), reference.double(), data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)


def noisy(reference: Tensor, sigma: float) -> Pair:
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
    return (reference + sigma * noise).clamp(0, 1), reference


def textured(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


PAIRS: dict[str, Callable[[], Pair]] = {
    "texture": lambda: noisy(textured(1, 3, 40, 57), 0.05),
    "smallest": lambda: noisy(textured(1, 3, 11, 11), 0.1),
    "narrow": lambda: noisy(textured(1, 1, 64, 11), 0.1),
    "batch of grey": lambda: noisy(textured(4, 1, 24, 30), 0.02),
    "nearly equal": lambda: noisy(textured(1, 3, 48, 48), 1e-4),
    # The hard case for float32: variances of 1e-6 beside means of 1.
    "bright and flat": lambda: noisy(torch.full((1, 3, 64, 64), 0.98), 1e-3),
    "dark and flat": lambda: noisy(torch.full((1, 3, 64, 64), 0.01), 1e-3),
    "unrelated": lambda: (textured(1, 3, 32, 32), 1.0 - textured(1, 3, 32, 32)),
    "shifted": lambda: (textured(1, 3, 32, 32) * 0.5, textured(1, 3, 32, 32) * 0.5 + 0.5),
    "black and white": lambda: (torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)),
}


@pytest.mark.reference
@pytest.mark.parametrize("name", PAIRS)
def test_equals_torchmetrics(name: str) -> None:
    image, reference = PAIRS[name]()
    assert ssim(image, reference) == pytest.approx(oracle(image, reference), abs=1e-6)


@pytest.mark.reference
def test_equals_torchmetrics_on_a_photograph(kodak: tuple[Path, ...]) -> None:
    image, reference = noisy(read_picture(kodak[19]).tensor()[:, :, :200, :300], 0.01)
    assert ssim(image, reference) == pytest.approx(oracle(image, reference), abs=1e-6)


@pytest.mark.reference
def test_the_tolerance_tells_other_borders_apart() -> None:
    image, reference = PAIRS["texture"]()
    inside = (..., slice(5, -5), slice(5, -5))
    assert abs(ssim(image[inside], reference[inside]) - oracle(image, reference)) > 1e-4


@pytest.mark.unit
def test_equal_pictures_give_exactly_one() -> None:
    picture = textured(1, 3, 30, 30)
    assert ssim(picture, picture.clone()) == 1.0


@pytest.mark.unit
def test_is_symmetric_and_blind_to_memory_layout() -> None:
    image, reference = PAIRS["texture"]()
    expected = ssim(image, reference)
    assert ssim(reference, image) == pytest.approx(expected, abs=1e-7)
    interleaved = image.contiguous(memory_format=torch.channels_last)
    assert ssim(interleaved, reference) == pytest.approx(expected, abs=1e-7)
    assert ssim(image.double(), reference.double()) == pytest.approx(expected, abs=1e-7)


@pytest.mark.unit
@pytest.mark.parametrize("size", [(10, 64), (64, 10)])
def test_refuses_pictures_smaller_than_the_window(size: tuple[int, int]) -> None:
    small = torch.zeros(1, 3, *size)
    with pytest.raises(SettingError, match=f"at least 11x11 px, found {size[0]}x{size[1]}"):
        ssim(small, small)


@pytest.mark.unit
@pytest.mark.usefixtures("without_shape_checks")
def test_refuses_different_sizes() -> None:
    with pytest.raises(SettingError, match="one size"):
        ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))
