from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from study_kit import measurement, truth
from torch import Tensor

from quantisp.errors import RunError
from quantisp.evaluation import Measurement, measure
from quantisp.evaluation.measure import LEAST_TILE_MSE
from quantisp.metrics import ssim


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """A restoration that leaves [0, 1] here and there, and the truth."""
    original = truth(1, 150, 140)
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(4))
    return original + 0.1 * noise, original


@pytest.mark.reference
def test_equals_the_formulas(pair: tuple[Tensor, Tensor]) -> None:
    restored, original = pair
    float_output = (restored + 0.01).clamp(0, 1)
    found = measure(restored, original, float_output)

    clipped = np.clip(restored.numpy(), 0, 1)
    shown = np.rint(clipped * np.float32(255)).astype(np.uint8)
    stored = np.rint(original.numpy() * 255).astype(np.uint8)
    squared = ((shown.astype(float) - stored.astype(float)) / 255) ** 2
    assert found.mse == pytest.approx(squared.mean(), rel=1e-6)
    assert found.psnr_db == pytest.approx(10 * np.log10(1 / squared.mean()), abs=1e-5)
    inside = squared[:, :, 10:-10, 10:-10].mean()
    assert found.mse_crop10 == pytest.approx(inside, rel=1e-6)
    assert found.psnr_crop10_db == pytest.approx(10 * np.log10(1 / inside), abs=1e-5)
    to_float = (clipped.astype(float) - float_output.numpy().astype(float)) ** 2
    assert found.mse_to_float == pytest.approx(to_float.mean(), rel=1e-12)
    # 150x140 px: two rows and two columns of tiles, the last ones shifted inwards.
    tiles = [[squared[..., y : y + 128, x : x + 128].mean() for x in (0, 12)] for y in (0, 22)]
    np.testing.assert_allclose(found.tile_mse, tiles, rtol=1e-6)
    assert found.ssim == ssim(torch.from_numpy(shown).float() / 255, original)


@pytest.mark.unit
def test_the_float_network_is_not_compared_with_itself(pair: tuple[Tensor, Tensor]) -> None:
    assert measure(*pair).mse_to_float == 0.0


@pytest.mark.unit
def test_the_comparison_with_float_is_not_rounded_to_8_bits(pair: tuple[Tensor, Tensor]) -> None:
    original = pair[1].clamp(0.1, 0.9).mul(255).round() / 255
    found = measure(original + 1e-4, original, original)
    assert found.mse == 0.0
    assert found.mse_to_float == pytest.approx(1e-8, rel=1e-2)


@pytest.mark.unit
def test_equal_pictures_count_as_100_db(pair: tuple[Tensor, Tensor]) -> None:
    found = measure(pair[1], pair[1])
    assert (found.psnr_db, found.psnr_crop10_db, found.ssim) == (100.0, 100.0, 1.0)


@pytest.mark.unit
def test_infinity_is_clipped_and_nan_refused(pair: tuple[Tensor, Tensor]) -> None:
    restored = pair[0].clone()
    restored[0, 1, 20, 30] = math.inf
    assert measure(restored, pair[1]).mse < 1.0
    restored[0, 1, 20, 30] = math.nan
    with pytest.raises(RunError, match="found NaN"):
        measure(restored, pair[1])


finite = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)


@pytest.mark.property
@given(finite, finite, st.floats(-1, 1), finite, st.lists(st.tuples(finite, finite), min_size=1))
def test_a_round_trip_through_json_is_exact(
    mse: float, crop: float, similarity: float, to_float: float, tiles: list[tuple[float, float]]
) -> None:
    one = Measurement(
        mse=mse, mse_crop10=crop, ssim=similarity, mse_to_float=to_float, tile_mse=tuple(tiles)
    )
    assert Measurement.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.unit
@pytest.mark.parametrize("missing", ["mse", "mse_crop10", "ssim", "mse_to_float", "tile_mse"])
def test_an_incomplete_measurement_is_not_read(missing: str) -> None:
    stored = measurement().to_dict()
    del stored[missing]
    with pytest.raises(KeyError):
        Measurement.from_dict(stored)


@pytest.mark.unit
def test_worst_tile_drop() -> None:
    before = measurement(tile_mse=((1e-4, 1e-3), (1e-2, 1e-4)))
    after = measurement(tile_mse=((1e-4, 1e-3), (1e-2, 1e-3)))
    assert after.worst_tile_drop_db(before) == pytest.approx(10.0)
    assert before.worst_tile_drop_db(after) == pytest.approx(0.0)
    better = measurement(tile_mse=((1e-5, 1e-4), (1e-3, 1e-5)))
    assert better.worst_tile_drop_db(before) == pytest.approx(-10.0)


@pytest.mark.unit
def test_a_tile_below_the_8_bit_floor_counts_as_one_on_it() -> None:
    perfect, good = measurement(tile_mse=((0.0,),)), measurement(tile_mse=((LEAST_TILE_MSE,),))
    assert good.worst_tile_drop_db(perfect) == 0.0
    worse = measurement(tile_mse=((10 * LEAST_TILE_MSE,),))
    assert worse.worst_tile_drop_db(perfect) == pytest.approx(10.0)
