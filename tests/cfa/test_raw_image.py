from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from raw_kit import capture

from quantisp.cfa import CFAPattern
from quantisp.cfa.phase import phase_doubt, phase_roughness
from quantisp.cfa.raw_image import RawImage, linear
from quantisp.errors import ImageError

NAN = math.nan


def test_levels_by_position() -> None:
    raw = capture()
    values = linear(raw)
    assert values.dtype == np.float32
    for y, x in np.ndindex(raw.size):
        black = raw.black[y % 4 * 4 + x % 4]
        expected = (int(raw.codes[y, x]) - black) / (raw.white - black)
        assert values[y, x] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    # Neither end is clipped.
    assert values.min() < 0
    assert linear(replace(raw, white=500.0)).max() > 1


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.zeros((2, 2), dtype=np.int32)}, "codes as uint16"),
        ({"codes": np.zeros((2, 2, 3), dtype=np.uint16)}, "codes as uint16"),
        ({"codes": np.zeros((0, 2), dtype=np.uint16)}, "codes as uint16"),
        ({"black": (1.0, 2.0)}, "16 black levels"),
        ({"black": (NAN,) * 16}, "finite levels"),
        ({"white": math.inf}, "finite levels"),
        ({"white": 5.0}, "below the white level"),
        ({"bits": 17}, "1 to 16 bits"),
        ({"orientation": 0}, "orientation"),
        ({"as_shot_neutral": (1.0, 0.0, 1.0)}, "neutral"),
        ({"as_shot_neutral": (1.0, NAN, 1.0)}, "neutral"),
        ({"color_matrix": np.full((3, 3), NAN)}, "colour matrix"),
        ({"color_matrix": np.ones((2, 3))}, "colour matrix"),
        ({"noise_profile": ((-1.0, 0.0),)}, "noise"),
    ],
)
def test_what_means_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        replace(capture(), **change)
    assert "\n" not in str(caught.value)


def scene(cfa: str, *, colour: bool = True, noise: float = 20.0) -> RawImage:
    """A coloured ramp with noise, through the pattern."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:120, 0:132] / 132
    rgb = np.stack([0.3 + 0.5 * y, 0.6 - 0.3 * x, 0.15 + 0.2 * x], axis=2)
    if not colour:
        rgb[:] = rgb.mean(axis=2, keepdims=True)
    pattern = CFAPattern.named(cfa)
    weights = np.array([[pattern.response(c) for c in row] for row in pattern.tile])
    period_y, period_x = pattern.period
    tiled = np.tile(weights, (120 // period_y + 1, 132 // period_x + 1, 1))[:120, :132]
    values = (rgb * tiled).sum(axis=2) * 900 + 64 + rng.normal(0, noise, (120, 132))
    return RawImage(
        codes=np.clip(np.rint(values), 0, 1023).astype(np.uint16),
        pattern=pattern,
        black=(64.0,) * (period_y * period_x),
        white=1023.0,
        bits=10,
    )


@pytest.mark.property
@pytest.mark.parametrize(
    "cfa", ["bayer", "quad-bayer", "rgbw-kodak", "rgbw-mipi", "rgbw-sony", "x-trans"]
)
def test_another_phase_is_suspected_and_the_right_one_is_not(cfa: str) -> None:
    raw = scene(cfa)
    assert phase_doubt(raw) is None
    shifted = replace(raw, pattern=raw.pattern.crop(top=0, left=1))
    doubt = phase_doubt(shifted)
    assert doubt is not None
    assert "\n" not in doubt


def test_four_shifts_of_bayer() -> None:
    raw = scene("bayer")
    roughness = phase_roughness(raw)
    assert set(roughness) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    # R and B exchanged are as smooth.
    assert roughness[0, 0] == pytest.approx(roughness[1, 1])
    assert roughness[0, 1] > 10 * roughness[0, 0]


def test_nothing_is_said_of_grey_scenes_or_tiles_of_different_letters() -> None:
    grey = scene("bayer", colour=False)
    assert phase_doubt(replace(grey, pattern=CFAPattern(("GR", "BG")))) is None
    assert phase_doubt(scene("rgbw-gindele")) is None


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 300), (700, 5), (1100, 970)])
def test_any_size(size: tuple[int, int]) -> None:
    raw = replace(capture(), codes=np.full(size, 500, dtype=np.uint16))
    assert phase_doubt(raw) is None
