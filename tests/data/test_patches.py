from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantisp.data import PatchCache, TileSet


def coordinates(index: int, height: int, width: int) -> Tensor:
    """A tile whose pixels say where they are: (y, x, index)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x, torch.full_like(y, index)]).to(torch.uint8)


SIZES = [(200, 150), (64, 256), (90, 64)]


def coordinate_cache(**options: float) -> PatchCache:
    tiles = [coordinates(index, *size) for index, size in enumerate(SIZES)]
    return PatchCache(TileSet.of(tiles), **options)


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
def test_a_patch_that_is_no_square_stays_as_high_and_wide() -> None:
    batch = coordinate_cache().batch(seed=0, step=0, size=200, patch_px=(60, 40))
    assert batch.shape == (200, 3, 60, 40)
    ways = set()
    for patch in (batch * 255).round().int():
        ys, xs = patch[0, :, 0].tolist(), patch[1, 0].tolist()
        assert sorted(ys) == list(range(min(ys), min(ys) + 60))
        assert sorted(xs) == list(range(min(xs), min(xs) + 40))
        ways.add((ys[0] < ys[1], xs[0] < xs[1]))
    assert len(ways) == 4


@pytest.mark.unit
def test_every_place_of_a_tile_can_be_drawn() -> None:
    cache = PatchCache(TileSet.of([coordinates(0, 130, 100)]))
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


def share_of_hard(tile: Tensor, detail_power: float = 0.5) -> float:
    cache = PatchCache(TileSet.of([tile]), detail_power=detail_power)
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
    assert share_of_hard(half_hard(1.0), detail_power=0.0) == pytest.approx(0.5, abs=0.06)


@pytest.mark.unit
def test_the_parts_of_a_batch_are_the_batch() -> None:
    cache = coordinate_cache(exposure_jitter=0.3, colour_jitter=0.1)
    asked = {"seed": 1, "step": 2, "size": 12, "patch_px": 32}
    whole = cache.batch(**asked)
    for k in range(3):
        assert torch.equal(cache.batch(**asked, part=(k, 3)), whole[k::3])


@pytest.mark.unit
def test_jitter_darkens_patches_and_leaves_the_places_alone() -> None:
    asked = {"seed": 1, "step": 2, "size": 400, "patch_px": 8}
    plain = coordinate_cache().batch(**asked)
    exposed = coordinate_cache(exposure_jitter=0.4).batch(**asked)
    tinted = coordinate_cache(colour_jitter=0.2).batch(**asked)
    bright = plain.amax((2, 3)) > 0
    exposure = (exposed.amax((2, 3)) / plain.amax((2, 3)))[bright]
    tint = (tinted.amax((2, 3)) / plain.amax((2, 3)))[bright]
    for gains, least in ((exposure, 0.6), (tint, 0.8)):
        assert least <= float(gains.min()) < least + 0.02
        assert 0.98 < float(gains.max()) <= 1.0
    # One gain a patch for exposure; one a channel for colour.
    ratios = exposed / plain.clamp(min=1e-9)
    both = (plain[:, 0].amax((1, 2)) > 0) & (plain[:, 1].amax((1, 2)) > 0)
    rows, columns = (ratios[both, c].amax((1, 2)) for c in (0, 1))
    torch.testing.assert_close(rows, columns)
    ratios = tinted / plain.clamp(min=1e-9)
    rows, columns = (ratios[both, c].amax((1, 2)) for c in (0, 1))
    assert not torch.allclose(rows, columns, atol=0.02)
