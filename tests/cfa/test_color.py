from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import color as skimage_color

from quantisp.cfa import CFAPattern
from quantisp.cfa.color import (
    SRGB_TO_XYZ,
    balanced_pattern,
    camera_to_srgb,
    decode_srgb,
    encode_srgb,
    grey_world_neutral,
    letter_gains,
)
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

pytestmark = pytest.mark.unit

# XYZ to a camera's colours; as a real one's.
MATRIX = np.array([[0.9, -0.2, -0.1], [-0.4, 1.3, 0.1], [0.0, 0.2, 0.6]])
NEUTRAL = (0.5, 1.0, 0.7)


@pytest.mark.reference
def test_the_tone_curve_is_skimages():
    coded = torch.linspace(0, 1, 257)
    # skimage decodes sRGB on its way to XYZ; equal R, G and B of 1 are white.
    grey = coded[:, None].repeat(1, 3).double().numpy()[None]
    luminance = skimage_color.rgb2xyz(grey)[0, :, 1]
    assert np.allclose(decode_srgb(coded.double()).numpy(), luminance, atol=1e-6)
    assert torch.allclose(encode_srgb(decode_srgb(coded)), coded, atol=1e-6)
    assert encode_srgb(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([0.0, 1.0])


def test_camera_colours_come_back():
    srgb = np.random.default_rng(0).uniform(0, 1, (50, 3))
    camera = srgb @ (MATRIX @ SRGB_TO_XYZ).T
    white = (MATRIX @ SRGB_TO_XYZ).sum(axis=1)
    back = (camera / white) @ camera_to_srgb(MATRIX).T
    assert np.allclose(back, srgb, atol=1e-10)
    assert np.allclose(camera_to_srgb(MATRIX).sum(axis=1), 1.0)
    # A fourth row, of W, changes nothing.
    assert np.array_equal(camera_to_srgb(np.vstack([MATRIX, [1, 1, 1]])), camera_to_srgb(MATRIX))


@pytest.mark.parametrize(
    "matrix", [np.zeros((3, 3)), -MATRIX, np.ones((3, 3)), np.full((3, 3), np.nan)]
)
def test_a_matrix_that_leads_nowhere_is_refused(matrix: np.ndarray):
    with pytest.raises(ImageError, match="correct ColorMatrix1"):
        camera_to_srgb(matrix)


@pytest.mark.parametrize("name", ["bayer", "rgbw-kodak", "x-trans", "rgbw-gindele"])
def test_gains_make_a_neutral_surface_grey(name: str):
    pattern = CFAPattern.named(name)
    gains = letter_gains(pattern, NEUTRAL)
    seen = [gains[c] * float(np.dot(pattern.response(c), NEUTRAL)) for c in pattern.letters]
    assert np.allclose(seen, seen[0])
    assert min(gains.values()) == 1.0


def test_more_sensitive_white_is_the_same_cfa_once_balanced():
    assert balanced_pattern(CFAPattern.named("rgbw-kodak").with_white((0.7, 0.7, 0.7))) == (
        CFAPattern.named("rgbw-kodak")
    )
    weighted = CFAPattern.named("rgbw-kodak").with_white((0.5, 1.0, 0.5))
    assert balanced_pattern(weighted).response("W") == (0.25, 0.5, 0.25)


def raw_of(pattern: CFAPattern, colour: tuple[float, float, float], black: float) -> RawImage:
    rows = [
        [float(np.dot(pattern.response(pattern.letter(y, x)), colour)) for x in range(22)]
        for y in range(19)
    ]
    codes = np.rint(black + np.array(rows) * (1000 - black)).astype(np.uint16)
    levels = (black,) * (pattern.period[0] * pattern.period[1])
    return RawImage(codes=codes, pattern=pattern, black=levels, white=1000.0, bits=10)


@pytest.mark.parametrize("name", ["bayer", "rgbw-kodak", "x-trans"])
def test_grey_world_finds_the_colour_of_a_flat_capture(name: str):
    raw = raw_of(CFAPattern.named(name), (0.3, 0.6, 0.42), 50.0)
    assert np.allclose(grey_world_neutral(raw), (0.5, 1.0, 0.7), atol=2e-3)


def test_grey_world_needs_signal():
    with pytest.raises(ImageError, match="give --white-balance"):
        grey_world_neutral(raw_of(CFAPattern.named("bayer"), (0.3, 0.6, 0.0), 50.0))
    with pytest.raises(ImageError, match="lacks R"):
        grey_world_neutral(raw_of(CFAPattern(("CM", "YG")), (0.3, 0.6, 0.5), 50.0))
