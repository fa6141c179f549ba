"""Crops of a few pictures, to calibrate a quantized network with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.data.images import ImageFile, as_8_bits, find_images, read_picture
from quantisp.data.patches import PatchCache
from quantisp.data.tiles import TileSet
from quantisp.errors import ImageError

__all__ = [
    "CROP_PX",
    "CalibrationCrops",
    "calibration_batches",
    "calibration_crops",
    "default_calibration",
]

# Packaged with scikit-image, and others than the photographs that are studied by default.
DEFAULT_FILES = ("rocket.jpg", "motorcycle_left.png")
CROP_PX = 96
BATCHES, BATCH = 48, 4
# Of larger crops, as many as have the same number of pixels, but no fewer.
LEAST_BATCHES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class CalibrationCrops:
    """Where crops come from, and the crops.

    Args:
        sha256: of the pixels of each picture.
        shown_sha256: the same of their upper eight bits, which crops are cut from.
        batches: RGB in [0, 1].
    """

    sha256: tuple[str, ...]
    shown_sha256: tuple[str, ...]
    batches: tuple[Float[Tensor, "n 3 h w"], ...]


def default_calibration() -> tuple[ImageFile, ...]:
    """The packaged photographs to calibrate with.

    Raises:
        ImageError: scikit-image has lost them.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return find_images([folder / name for name in DEFAULT_FILES])


def calibration_crops(
    files: Sequence[ImageFile], *, seed: int = 0, size: tuple[int, int] = (CROP_PX, CROP_PX)
) -> CalibrationCrops:
    """Forty-eight batches of four crops of 96x96 px, more of them from places with detail.

    Args:
        files: the pictures.
        seed: chooses the places; the same seed chooses the same ones.
        size: height and width of a crop in px, for networks that do not take 96x96; there are fewer
            batches of larger ones.

    Raises:
        ImageError: a picture is damaged, not RGB, or smaller than a crop.
    """
    pictures = [read_picture(file.path) for file in files]
    tiles: list[Tensor] = []
    for file, picture in zip(files, pictures, strict=True):
        samples = as_8_bits(picture).samples
        if samples.shape[0] < size[0] or samples.shape[1] < size[1]:
            raise ImageError(
                f"expected calibration pictures of at least {size[0]}x{size[1]} px, {file.path} is "
                f"{samples.shape[0]}x{samples.shape[1]}: leave it out of --calibration, or give "
                "larger ones"
            )
        tiles.append(torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1))))
    patches = PatchCache(TileSet.of(tiles))
    return CalibrationCrops(
        sha256=tuple(p.sha256() for p in pictures),
        shown_sha256=tuple(as_8_bits(p).sha256() for p in pictures),
        batches=_batches(patches, seed, size),
    )


def calibration_batches(
    patches: PatchCache, *, seed: int, largest_px: int = CROP_PX
) -> tuple[Float[Tensor, "n 3 p p"], ...]:
    """The same from pictures that are decoded already.

    Args:
        patches: of the pictures.
        seed: chooses the places.
        largest_px: a crop is no larger.
    """
    crop_px = min(CROP_PX, largest_px)
    return _batches(patches, seed, (crop_px, crop_px))


def _batches(patches: PatchCache, seed: int, size: tuple[int, int]) -> tuple[Tensor, ...]:
    alike = BATCHES * CROP_PX**2 // (size[0] * size[1])
    return tuple(
        patches.batch(seed=seed, step=step, size=BATCH, patch_px=size)
        for step in range(min(max(alike, LEAST_BATCHES), BATCHES))
    )
