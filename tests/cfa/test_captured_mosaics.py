"""Noisy mosaics by PyTorch: the same sensor as that of simulated captures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantisp.cfa import CFAPattern, mosaic
from quantisp.cfa.balance import balanced
from quantisp.cfa.capture import captured_mosaic, linear_light, tone_mapped
from quantisp.cfa.color import decode_srgb, encode_srgb, letter_gains
from quantisp.cfa.noise import NoiseModel, camera_noise
from quantisp.cfa.simulation import SensorSettings, simulate_raw

KODAK_CFA = CFAPattern.named("rgbw-kodak")
NONE = NoiseModel(shot=0.0, read=0.0)


def captured(light: torch.Tensor, noise: NoiseModel, seed: int = 0, **changes) -> torch.Tensor:
    settings = {"gains": dict.fromkeys("RGBW", 1.0), "bits": 10, "black": 64.0, **changes}
    generator = torch.Generator().manual_seed(seed)
    return captured_mosaic(light, KODAK_CFA, noise=noise, generator=generator, **settings)


def picture(px: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, px, px, generator=torch.Generator().manual_seed(1))


@pytest.mark.reference
def test_without_noise_it_is_the_simulated_capture_to_the_last_code():
    neutral = (0.5, 1.0, 0.625)
    light = picture() * 2.0
    gains = letter_gains(KODAK_CFA, neutral)
    # The simulation counts light against the colour that saturates first, this one W's samples too.
    most = max(gains[c] * n for c, n in zip("RGB", neutral, strict=True))
    found = captured(light * most, NONE, gains=gains)
    raw = simulate_raw(
        light[0].permute(1, 2, 0).contiguous().numpy(),
        SensorSettings(pattern=KODAK_CFA),
        neutral=neutral,
    )
    step = max(gains.values()) / 959.0
    assert np.abs(found[0, 0].numpy() - balanced(raw, neutral)).max() < 1.01 * step
    assert np.abs(found[0, 0].numpy() - balanced(raw, neutral)).mean() < 1e-4


@pytest.mark.property
@pytest.mark.parametrize("level", [0.02, 0.3])
def test_the_variance_of_each_letter_grows_with_its_gain(level: float):
    noise = camera_noise(3200.0)
    gains = {"R": 3.0, "G": 1.5, "B": 2.0, "W": 1.0}
    light = torch.full((1, 3, 256, 256), level)
    found = captured(light, noise, gains=gains, bits=16, black=8192.0)[0, 0].double()
    for letter, gain in gains.items():
        where = [(y, x) for y in range(4) for x in range(4) if KODAK_CFA.letter(y, x) == letter]
        sites = torch.stack([found[y::4, x::4].flatten() for y, x in where])
        variance = gain * noise.shot * level + gain**2 * noise.read
        assert float(sites.mean()) == pytest.approx(level, abs=5e-3)
        assert float(sites.var()) == pytest.approx(variance, rel=0.06)


def test_the_more_sensitive_letter_saturates_first():
    gains = {"R": 2.0, "G": 2.0, "B": 2.0, "W": 1.0}
    light = torch.full((1, 3, 8, 8), 1.5)
    assert float(captured(light, NONE, gains=gains).max()) == 1.0
    # At 1.0, W is just at white and the colours at half of it: their noise is not clipped there.
    noisy = captured(torch.ones(1, 3, 64, 64), NoiseModel(shot=0.01, read=0.0), gains=gains)
    seen = mosaic(torch.ones(1, 3, 64, 64), KODAK_CFA)
    assert float(noisy.max()) == 1.0
    assert noisy.shape == seen.shape


def test_noise_below_black_stays_negative_and_follows_from_the_seed():
    dark = torch.zeros(1, 3, 40, 44)
    noise = camera_noise(6400.0)
    assert float(captured(dark, noise).min()) < -0.02
    assert torch.equal(captured(dark, noise), captured(dark, noise))
    assert not torch.equal(captured(dark, noise), captured(dark, noise, seed=1))


@pytest.mark.reference
def test_tone_curves_are_those_of_pictures_and_go_on_beyond():
    values = torch.linspace(0.0, 1.0, 4097)
    assert torch.allclose(tone_mapped(values), encode_srgb(values), atol=1e-6)
    assert torch.allclose(linear_light(values), decode_srgb(values), atol=1e-6)
    assert torch.allclose(linear_light(tone_mapped(values)), values, atol=1e-6)
    beyond = torch.tensor([-0.5, 1.5], requires_grad=True)
    tone_mapped(beyond).sum().backward()
    assert beyond.grad is not None
    assert bool((beyond.grad > 0.1).all())
