"""What a network learns from: clean mosaics of coded values, or noisy ones of light.

``srgb``: the pictures' own values, sampled through the CFA. ``linear``, and ``root`` with the
square root of each sample: what a sensor would have given, with its noise::

    sRGB picture ──▶ linear light ──▶ a camera's colours ──▶ exposure ──▶ the sensor ──▶ mosaic
                                                                │
                    target ◀── sRGB's tone curve ◀── clipped ◀──┘

The network gives light there; it is compared with the target through the same curve, for that is
what eyes see.

Source: the way back from a picture to raw is that of Brooks, Mildenhall, Xue, Chen, Sharlet,
Barron, "Unprocessing images for learned raw denoising", CVPR 2019, whose four cameras' matrices
(ColorMatrix of the Darmstadt Noise Dataset's) are used; the noise is that of
:mod:`quantisp.cfa.noise`. The ranges are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa import CFAPattern, mosaic
from quantisp.cfa.capture import captured_mosaic, linear_light, tone_mapped
from quantisp.cfa.color import camera_to_srgb, letter_gains
from quantisp.cfa.domains import rooted, unrooted
from quantisp.cfa.noise import CAMERAS, NoiseModel, camera_noise

__all__ = ["examples", "shown", "validation_input"]

# XYZ to the camera's R, G, B.
CAMERA_MATRICES = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
LEAST_ISO, MOST_ISO = 100.0, 6400.0
EXPOSURES_EV = (-2.0, 0.5)
# Of R and B against G, and of how much more W collects than the mean of the colours.
MOST_BALANCE, MOST_WHITE = 2.5, 3.0
BITS, BLACK = 10, 64.0
VALIDATION_ISO = (100.0, 800.0, 6400.0)


def examples(
    domain: str,
    rgb: Float[Tensor, "n 3 p p"],
    pattern: CFAPattern,
    *,
    seed: int,
    step: int,
    part: tuple[int, int] = (0, 1),
) -> tuple[Float[Tensor, "n 1 p p"], Float[Tensor, "n 3 p p"]]:
    """What a network gets, and what its output should be when it is :func:`shown`.

    Args:
        domain: one of :data:`quantisp.cfa.domains.DOMAINS`.
        rgb: patches in [0, 1].
        pattern: the CFA at pixel (0, 0) of each.
        seed, step: they choose the cameras and the noise; equal values give equal ones.
        part: (k, n): the patches are every n-th of the batch, from the k-th on.
    """
    if domain == "srgb":
        return mosaic(rgb, pattern), rgb
    first, parts = part
    sensors = [_sensor((seed, step, first + parts * n), pattern) for n in range(len(rgb))]
    colours = np.stack([sensor.colours for sensor in sensors])
    weights = torch.from_numpy(colours).to(device=rgb.device, dtype=rgb.dtype)
    light = torch.einsum("ndc,nchw->ndhw", weights, linear_light(rgb)).clamp_min(0.0)
    given = [
        captured_mosaic(
            one[None],
            pattern,
            noise=sensor.noise,
            gains=sensor.gains,
            bits=BITS,
            black=BLACK,
            generator=torch.Generator(rgb.device).manual_seed(sensor.seed),
        )
        for one, sensor in zip(light, sensors, strict=True)
    ]
    return _seen(domain, torch.cat(given)), tone_mapped(light.clamp_max(1.0))


def shown(domain: str, restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """A network's output as it is compared: coded by sRGB's curve."""
    if domain == "srgb":
        return restored
    return tone_mapped(unrooted(restored) if domain == "root" else restored)


def validation_input(
    domain: str, rgb: Float[Tensor, "1 3 h w"], pattern: CFAPattern, number: int
) -> Float[Tensor, "1 1 h w"]:
    """What a network gets of the ``number``-th picture to validate on.

    Those of light are exposed as they are, by a balanced sensor at ISO 100, 800 and 6400 in turn.
    """
    if domain == "srgb":
        return mosaic(rgb, pattern)
    given = captured_mosaic(
        linear_light(rgb),
        pattern,
        noise=camera_noise(VALIDATION_ISO[number % len(VALIDATION_ISO)]),
        gains=dict.fromkeys(pattern.letters, 1.0),
        bits=BITS,
        black=BLACK,
        generator=torch.Generator(rgb.device).manual_seed(number),
    )
    return _seen(domain, given)


def _seen(domain: str, samples: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    return rooted(samples) if domain == "root" else samples


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sensor:
    """One camera, and how it was exposed."""

    colours: np.ndarray
    gains: Mapping[str, float]
    noise: NoiseModel
    seed: int


def _sensor(key: tuple[int, int, int], pattern: CFAPattern) -> _Sensor:
    # Numpy's generator takes all of the key, and gives PyTorch's a seed for the noise.
    rng = np.random.default_rng(key)
    return _Sensor(
        colours=_colours(rng) * 2.0 ** rng.uniform(*EXPOSURES_EV),
        gains=_gains(rng, pattern),
        noise=_noise(rng),
        seed=int(rng.integers(1 << 32)),
    )


def _colours(rng: np.random.Generator) -> np.ndarray:
    """From sRGB's primaries some way to those of a mixture of the cameras; white stays white."""
    shares = rng.dirichlet(np.ones(len(CAMERA_MATRICES)))
    mixture = np.tensordot(shares, CAMERA_MATRICES, axes=1)
    way = rng.uniform()
    return (1.0 - way) * np.eye(3) + way * np.linalg.inv(camera_to_srgb(mixture))


def _gains(rng: np.random.Generator, pattern: CFAPattern) -> dict[str, float]:
    red, blue = np.exp(-rng.uniform(0.0, math.log(MOST_BALANCE), 2))
    gains = letter_gains(pattern, (float(red), 1.0, float(blue)))
    more = float(np.exp(rng.uniform(0.0, math.log(MOST_WHITE))))
    sensitive = {c: gain / (more if c == "W" else 1.0) for c, gain in gains.items()}
    least = min(sensitive.values())
    return {letter: gain / least for letter, gain in sensitive.items()}


def _noise(rng: np.random.Generator) -> NoiseModel:
    camera = sorted(CAMERAS)[int(rng.integers(len(CAMERAS)))]
    iso = math.exp(rng.uniform(math.log(LEAST_ISO), math.log(MOST_ISO)))
    return camera_noise(iso, camera)
