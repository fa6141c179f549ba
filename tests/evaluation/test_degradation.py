"""What is done to a picture before a network restores it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from study_kit import KODAK_CFA, truth

from quantisp.cfa import CFAPattern, mosaic
from quantisp.errors import PatternError, SettingError
from quantisp.evaluation import downscaled, mosaicked, noisy, paired, parse_degradation

pytestmark = pytest.mark.unit
# Three samples of noise:25 for the seed "seed".
NOISE = [0.01644, 0.22321, 0.03101]


def test_a_mosaic_is_that_of_the_cfa():
    rgb = truth(0, 41, 50)
    degradation = parse_degradation("mosaic", KODAK_CFA)
    assert torch.equal(degradation.degrade(rgb, "seed"), mosaic(rgb, KODAK_CFA))
    assert degradation.interface.period == (4, 4)


def test_a_cfa_may_be_named_for_a_network_that_names_none():
    assert parse_degradation("mosaic:bayer").pattern == CFAPattern.named("bayer")
    assert parse_degradation("mosaic:RGGB").pattern == CFAPattern.named("bayer")
    assert parse_degradation("mosaic:rgbw-kodak", KODAK_CFA).pattern == KODAK_CFA


def test_nothing_may_be_done():
    rgb = truth(0, 41, 50)
    degradation = parse_degradation("none")
    assert torch.equal(degradation.whole(degradation.degrade(rgb, "seed")), rgb)
    assert degradation.pattern is None


def test_noise_follows_from_the_content_alone():
    rgb = truth(0, 200, 200)
    noise = noisy(25.0).degrade(rgb, "one") - rgb
    assert torch.equal(noise, noisy(25.0).degrade(rgb, "one") - rgb)
    assert not torch.equal(noise, noisy(25.0).degrade(rgb, "other") - rgb)
    # 120000 numbers: the standard deviation of their standard deviation is 0.2%.
    assert float(noise.std()) == pytest.approx(25.0 / 255.0, rel=0.01)
    assert abs(float(noise.mean())) < 0.001


def test_noise_is_the_same_on_every_machine():
    noise = noisy(25.0).degrade(torch.zeros(1, 3, 32, 32), "seed").flatten()
    digits = [round(value, 5) for value in noise[:3].tolist()]
    assert digits == NOISE


def test_noise_is_neither_clipped_nor_rounded():
    given = noisy(50.0).degrade(torch.ones(1, 3, 40, 40), "seed")
    assert float(given.max()) > 1.2
    steps = given * 255.0
    assert not torch.allclose(steps, steps.round(), atol=0.01)


@pytest.mark.reference
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downscaling_is_pillows(factor: int):
    rgb = downscaled(factor).whole(truth(1, 50, 62))
    given = downscaled(factor).degrade(rgb, "")
    size = (rgb.shape[3] // factor, rgb.shape[2] // factor)
    for channel, found in zip(rgb[0].numpy(), given[0].numpy(), strict=True):
        small = Image.fromarray(channel, mode="F").resize(size, Image.Resampling.BICUBIC)
        expected = np.asarray(small).clip(0.0, 1.0) * 255.0
        # Half a step of rounding, and no more than float32's own error beyond.
        assert np.abs(found * 255.0 - expected).max() <= 0.5001
        assert np.abs(found * 255.0 - np.round(found * 255.0)).max() < 1e-3


@pytest.mark.parametrize("degradation", [noisy(25.0), downscaled(2), mosaicked(KODAK_CFA)])
def test_shapes_are_those_of_the_interface(degradation):
    rgb = degradation.whole(truth(0, 43, 51))
    given = degradation.degrade(rgb, "")
    interface = degradation.interface
    assert given.shape[1] == interface.channels
    assert interface.output_shape(*given.shape[2:]) == tuple(rgb.shape)
    assert rgb.shape[2] > 43 - interface.factor


def test_pairs_change_nothing():
    rgb = truth(0, 40, 40)
    assert paired(2).degrade(rgb, "") is rgb
    assert paired(2).interface.factor == 2


def test_names_are_told_apart():
    texts = ["noise:25", "noise:25.5", "downscale:2", "downscale:3", "mosaic:bayer"]
    identities = [str(parse_degradation(text).identity()) for text in [*texts, "mosaic:x-trans"]]
    assert len(set(identities)) == 6
    assert [parse_degradation(text).name for text in texts[:4]] == texts[:4]


NONE_OF_THEM = "noise noise: noise:0 noise:-1 noise:nan noise:256 noise:x downscale downscale:1"
NONE_OF_THEM += " downscale:2.5 downscale:17 downscale:-2 blur:2"


@pytest.mark.parametrize("text", ["", *NONE_OF_THEM.split()])
def test_what_there_is_not_is_refused(text: str):
    with pytest.raises(SettingError, match="expected a degradation among mosaic"):
        parse_degradation(text)


def test_a_cfa_that_is_not_there_or_not_the_networks_is_refused():
    with pytest.raises(SettingError, match="the network names none: pass --degradation mosaic:"):
        parse_degradation("mosaic")
    with pytest.raises(SettingError, match="own CFA, rgbw-kodak, found bayer"):
        parse_degradation("mosaic:bayer", KODAK_CFA)
    with pytest.raises(PatternError):
        parse_degradation("mosaic:nobody")
