from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from raw_kit import capture

from quantisp.cfa import CFAPattern, mosaic, named_patterns
from quantisp.cfa.noise import camera_noise
from quantisp.cfa.raw_image import RawImage, linear
from quantisp.cfa.simulation import (
    SensorSettings,
    bin_bayer,
    grey_world,
    saturated,
    simulate_raw,
    srgb_to_linear,
)
from quantisp.errors import InputError

RGB = np.random.default_rng(3).random((24, 36, 3), dtype=np.float32)
NEUTRAL = (0.5, 1.0, 0.625)


def balanced(raw: RawImage) -> np.ndarray[Any, Any]:
    """Linear values, each letter divided by what it collects of a neutral."""
    values = linear(raw)
    period_y, period_x = raw.pattern.period
    for y, x in np.ndindex(period_y, period_x):
        response = raw.pattern.response(raw.pattern.letter(y, x))
        values[y::period_y, x::period_x] /= np.dot(response, raw.as_shot_neutral or (1, 1, 1))
    return values


@pytest.mark.property
@pytest.mark.parametrize("cfa", [pattern.name for pattern in named_patterns()])
def test_balanced_it_is_the_mosaic_that_networks_expect(cfa: str) -> None:
    pattern = CFAPattern.named(cfa)
    raw = simulate_raw(RGB, SensorSettings(pattern=pattern, bits=16), neutral=NEUTRAL)
    expected = mosaic(torch.from_numpy(RGB.transpose(2, 0, 1).copy())[None], pattern)[0, 0].numpy()
    np.testing.assert_allclose(balanced(raw), expected, atol=3e-5)


def test_codes_are_the_nearest() -> None:
    settings = SensorSettings(pattern=CFAPattern.named("bayer"), bits=10, black=64.0)
    raw = simulate_raw(np.full((4, 4, 3), 0.5, dtype=np.float32), settings)
    assert (raw.codes == round(64 + 0.5 * (1023 - 64))).all()
    assert (raw.white, raw.bits, raw.black) == (1023.0, 10, (64.0,) * 4)


def test_exposure_in_stops_and_clipping() -> None:
    settings = SensorSettings(pattern=CFAPattern.named("bayer"), bits=12)
    flat = np.full((4, 4, 3), 0.3, dtype=np.float32)
    one = linear(simulate_raw(flat, replace(settings, exposure_ev=1.0)))
    np.testing.assert_allclose(one, 0.6, atol=2e-4)
    full = simulate_raw(flat, replace(settings, exposure_ev=2.0))
    assert (full.codes == 4095).all()
    assert saturated(full) == {"R": 1.0, "G": 1.0, "B": 1.0}


def test_a_sensitive_white_saturates_first() -> None:
    pattern = CFAPattern.named("rgbw-kodak").with_white((2 / 3,) * 3)
    raw = simulate_raw(np.full((8, 8, 3), 0.6, dtype=np.float32), SensorSettings(pattern=pattern))
    assert saturated(raw) == {"R": 0.0, "G": 0.0, "B": 0.0, "W": 1.0}


def test_noise_is_the_seeds() -> None:
    noise = camera_noise(800.0)
    settings = SensorSettings(pattern=CFAPattern.named("rgbw-kodak"), noise=noise)
    once, again = (simulate_raw(RGB, settings).codes for _ in range(2))
    other = simulate_raw(RGB, replace(settings, seed=1)).codes
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    assert simulate_raw(RGB, settings).noise_profile == ((noise.shot, noise.read),)


@pytest.mark.property
@pytest.mark.parametrize("tile", [("RG", "GB"), ("BG", "GR"), ("GR", "BG"), ("GB", "RG")])
def test_binning_undoes_the_mosaic_of_flat_cells(tile: tuple[str, str]) -> None:
    """Each cell of one colour comes back; R, G, B and W are then sampled from what R, G, B were."""
    cells = RGB[:6, :8].repeat(2, axis=0).repeat(2, axis=1)
    settings = SensorSettings(pattern=CFAPattern(tile), bits=16, black=512.0)
    raw = simulate_raw(cells, settings, neutral=NEUTRAL)
    binned = bin_bayer(raw) / np.array(NEUTRAL, dtype=np.float32)
    np.testing.assert_allclose(binned, RGB[:6, :8], atol=1e-4)


def test_an_odd_row_and_column_are_left_out() -> None:
    raw = replace(capture("bayer"), codes=capture("bayer").codes[:13, :21])
    assert bin_bayer(raw).shape == (6, 10, 3)


def test_the_colours_of_white_are_those_of_its_share() -> None:
    """White's row of the matrix gives what white sees of any colour."""
    matrix = np.array([[0.8, -0.2, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6]])
    settings = SensorSettings(pattern=CFAPattern.named("rgbw-kodak"), bits=16)
    xyz = np.array([0.4, 0.5, 0.3])
    camera = matrix @ xyz
    scene = np.broadcast_to(camera / np.array(NEUTRAL), (8, 8, 3)).astype(np.float32)
    raw = simulate_raw(scene, settings, neutral=NEUTRAL, color_matrix=matrix)
    assert raw.color_matrix is not None
    assert linear(raw)[0, 0] == pytest.approx(float(raw.color_matrix[3] @ xyz), abs=1e-4)


def test_grey_world() -> None:
    cast = np.array([0.4, 0.8, 0.2], dtype=np.float32)
    scene = np.repeat(RGB[:, :, :1], 3, axis=2) * cast
    assert grey_world(scene) == pytest.approx((0.5, 1.0, 0.25), rel=1e-5)
    # What is saturated has no colour to go by.
    scene[:3] = 1.0
    assert grey_world(scene) == pytest.approx((0.5, 1.0, 0.25), rel=1e-5)
    with pytest.raises(InputError, match="--white-balance-gains"):
        grey_world(np.zeros((4, 4, 3), dtype=np.float32))


def test_srgb_to_linear_at_known_values() -> None:
    values = np.array([0.0, 0.04045, 0.5, 1.0], dtype=np.float32)
    expected = [0.0, 0.0031308, 0.21404114, 1.0]
    np.testing.assert_allclose(srgb_to_linear(values), expected, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 1},
        {"bits": 17},
        {"black": -1.0},
        {"black": 1023.0},
        {"black": float("nan")},
        {"exposure_ev": 17.0},
        {"exposure_ev": float("nan")},
        {"seed": -1},
        {"pattern": CFAPattern(("RG", "GB"), responses=(("G", (0.0, 0.0, 0.0)),))},
    ],
    ids=str,
)
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        SensorSettings(**{"pattern": CFAPattern.named("bayer"), **change})


@pytest.mark.parametrize(
    "rgb", [RGB[:3], np.full((8, 8, 3), np.nan, dtype=np.float32)], ids=["too small", "NaN"]
)
def test_pictures_that_cannot_be_sampled(rgb: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InputError):
        simulate_raw(rgb, SensorSettings(pattern=CFAPattern.named("rgbw-kodak")))


@pytest.mark.parametrize("cfa", ["rgbw-kodak", "quad-bayer", "rgbw-gindele"])
def test_only_bayer_is_binned(cfa: str) -> None:
    with pytest.raises(InputError, match="Bayer capture"):
        bin_bayer(capture(cfa))
