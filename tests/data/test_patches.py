from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from quantisp.data import ImageFile, PatchCache, read_training_tiles
from quantisp.errors import ImageError


def coordinates(index: int, height: int, width: int) -> Tensor:
    """A tile whose pixels say where they are: (y, x, index)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x, torch.full_like(y, index)]).to(torch.uint8)


SIZES = [(200, 150), (64, 256), (90, 64)]


def coordinate_cache() -> PatchCache:
    return PatchCache([coordinates(index, *size) for index, size in enumerate(SIZES)])


@pytest.mark.unit
def test_a_batch_is_a_function_of_seed_and_step() -> None:
    cache, again = coordinate_cache(), coordinate_cache()
    first = cache.batch(seed=3, step=7, size=16, patch_px=32)
    torch.rand(5)
    cache.batch(seed=3, step=8, size=16, patch_px=32)
    assert torch.equal(cache.batch(seed=3, step=7, size=16, patch_px=32), first)
    assert torch.equal(again.batch(seed=3, step=7, size=16, patch_px=32), first)
    for seed, step in ((3, 8), (4, 7), (7, 3)):
        assert not torch.equal(cache.batch(seed=seed, step=step, size=16, patch_px=32), first)


@pytest.mark.unit
def test_a_batch_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    coordinate_cache().batch(seed=0, step=0, size=4, patch_px=32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.property
@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.sampled_from([1, 17, 48, 64]))
def test_each_patch_is_a_square_of_one_tile(seed: int, step: int, patch_px: int) -> None:
    batch = coordinate_cache().batch(seed=seed, step=step, size=8, patch_px=patch_px)
    assert batch.shape == (8, 3, patch_px, patch_px)
    for patch in (batch * 255).round().int():
        (index,) = patch[2].unique().tolist()
        ys, xs = patch[0].unique().tolist(), patch[1].unique().tolist()
        for values, size in ((ys, SIZES[index][0]), (xs, SIZES[index][1])):
            assert values == list(range(values[0], values[0] + patch_px))
            assert values[-1] < size
        # Whatever the orientation, rows and columns stay rows or columns.
        along_x = torch.equal(patch[0], patch[0][:, :1].expand_as(patch[0]))
        along_y = torch.equal(patch[0], patch[0][:1].expand_as(patch[0]))
        assert along_x or along_y


@pytest.mark.unit
def test_all_eight_orientations_are_drawn() -> None:
    batch = coordinate_cache().batch(seed=0, step=0, size=200, patch_px=32)
    corners = {
        tuple(float(patch[c, -1, 0] - patch[c, 0, 0]) > 0 for c in (0, 1))
        + tuple(float(patch[c, 0, -1] - patch[c, 0, 0]) > 0 for c in (0, 1))
        + (bool(patch[0, 0, 0] != patch[0, -1, 0]),)
        for patch in batch
    }
    assert len(corners) == 8


@pytest.mark.unit
def test_every_place_of_a_tile_can_be_drawn() -> None:
    cache = PatchCache([coordinates(0, 130, 100)])
    seen = torch.zeros(130, 100, dtype=torch.bool)
    for step in range(8):
        patches = (cache.batch(seed=0, step=step, size=64, patch_px=32) * 255).round().long()
        seen[patches[:, 0], patches[:, 1]] = True
    assert bool(seen.all())


def half_hard(share_of_noise: float) -> Tensor:
    """Flat on the left, noise on the right; the blue channel tells which is which."""
    tile = torch.full((3, 256, 256), 128, dtype=torch.uint8)
    noise = torch.randint(0, 256, (2, 256, 128), generator=torch.Generator().manual_seed(0))
    tile[:2, :, 128:] = (128 + (noise - 128) * share_of_noise).to(torch.uint8)
    tile[2, :, 128:] = 255
    return tile


def share_of_hard(tile: Tensor) -> float:
    cache = PatchCache([tile])
    batches = [cache.batch(seed=0, step=step, size=250, patch_px=8) for step in range(4)]
    return float((torch.cat(batches)[:, 2, 4, 4] == 1.0).float().mean())


@pytest.mark.unit
def test_hard_places_are_drawn_more_often() -> None:
    assert share_of_hard(half_hard(1.0)) > 0.8
    # The twin: where no place is harder, none is preferred; and flat places are still drawn.
    flat = half_hard(0.0)
    flat[2] = torch.where(flat[2] == 255, 255, 254)
    assert share_of_hard(flat) == pytest.approx(0.5, abs=0.06)
    assert share_of_hard(half_hard(1.0)) < 1.0


# --- reading -------------------------------------------------------------------------------------


def stored(folder: Path, name: str, samples: np.ndarray) -> ImageFile:
    Image.fromarray(samples).save(folder / name)
    return ImageFile(name=name, path=folder / name)


@pytest.mark.unit
def test_bad_pictures_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    good = stored(tmp_path, "good.png", samples)
    small = stored(tmp_path, "small.png", samples[:31])
    grey = stored(tmp_path, "grey.png", samples[:, :, 0])
    broken = stored(tmp_path, "broken.png", samples)
    broken.path.write_bytes(broken.path.read_bytes()[:500])
    counts: list[int] = []
    with caplog.at_level(logging.WARNING, logger="quantisp"):
        tiles = read_training_tiles(
            [small, good, broken, grey], at_least_px=32, on_read=counts.append
        )
    assert len(tiles) == 1
    assert torch.equal(tiles[0], torch.from_numpy(samples).permute(2, 0, 1))
    assert counts == [1, 2, 3, 4]
    told = caplog.text
    assert all(name in told for name in ("small.png", "broken.png", "grey.png"))
    assert "good.png" not in told
    assert "3 of 4 pictures were skipped" in told


@pytest.mark.unit
def test_16_bits_are_rounded_to_8(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.stack([values] * 3, axis=-1), photometric="rgb")
    (tile,) = read_training_tiles([ImageFile(name="deep", path=path)], at_least_px=64)
    expected = np.rint(values.astype(np.float64) * 255 / 65535).astype(np.uint8)
    assert np.array_equal(tile[1].numpy(), expected)


@pytest.mark.unit
def test_nothing_usable_is_refused(tmp_path: Path) -> None:
    small = stored(tmp_path, "small.png", np.zeros((8, 8, 3), np.uint8))
    for files in ([], [small]):
        with pytest.raises(ImageError, match=f"none of the {len(files)} found is usable") as caught:
            read_training_tiles(files, at_least_px=64)
        assert "\n" not in str(caught.value)
