from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quantisp.data import ImageFile, calibration_crops, default_calibration, find_images
from quantisp.errors import ImageError

pytestmark = pytest.mark.unit


def stored(folder: Path, name: str, height: int, width: int, seed: int) -> ImageFile:
    samples = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(samples).save(folder / name)
    return ImageFile(name=name, path=folder / name)


def test_there_are_packaged_pictures_and_they_are_not_those_that_are_studied() -> None:
    files = default_calibration()
    assert [file.name for file in files] == ["rocket", "motorcycle_left"]
    assert not {f.path for f in files} & {f.path for f in find_images(["sample"])}
    crops = calibration_crops(files)
    assert [tuple(batch.shape) for batch in crops.batches] == [(4, 3, 96, 96)] * 48
    assert len(crops.sha256) == 2


def test_a_seed_chooses_the_crops(tmp_path: Path) -> None:
    files = [stored(tmp_path, "a.png", 200, 300, 0), stored(tmp_path, "b.png", 96, 96, 1)]
    first, again, other = (calibration_crops(files, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(*pair) for pair in zip(first.batches, again.batches, strict=True))
    assert not torch.equal(first.batches[0], other.batches[0])
    assert not torch.equal(first.batches[0], first.batches[1])


def test_a_picture_that_is_too_small_is_named(tmp_path: Path) -> None:
    files = [stored(tmp_path, "small.png", 95, 300, 0)]
    with pytest.raises(ImageError, match=r"at least 96x96 px, .*small\.png is 95x300: leave it"):
        calibration_crops(files)


def test_crops_are_as_large_as_asked_for(tmp_path: Path) -> None:
    files = [stored(tmp_path, "a.png", 160, 300, 0), stored(tmp_path, "b.png", 192, 240, 1)]
    crops = calibration_crops(files, size=(160, 240))
    # As many pixels as in 48 batches of 96x96.
    assert [tuple(batch.shape) for batch in crops.batches] == [(4, 3, 160, 240)] * 11
    few = calibration_crops([stored(tmp_path, "c.png", 600, 800, 2)], size=(512, 768))
    assert len(few.batches) == 4
    assert len(calibration_crops(files, size=(40, 48)).batches) == 48
    with pytest.raises(ImageError, match=r"at least 160x256 px, .*b\.png is 192x240: leave it"):
        calibration_crops(files, size=(160, 256))
