"""Mosaics as a sensor gives them, on any device: light, gains, photons, reading, converter.

::

    balanced linear RGB ──▶ each filter's share ──▶ / gain ──▶ Poisson ──▶ + Gauss
          mosaic, white-balanced ◀── clipped at 1 ◀── x gain ◀── rounded to codes, clipped at white

The same sensor as of :mod:`quantisp.cfa.simulation`, which makes files of it, by PyTorch's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa.noise import NoiseModel
from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.sampling import mosaic

__all__ = ["captured_mosaic", "linear_light", "tone_mapped"]

LINEAR_PART, LINEAR_SLOPE = 0.0031308, 12.92


def captured_mosaic(
    light: Float[Tensor, "1 3 h w"],
    pattern: CFAPattern,
    *,
    noise: NoiseModel,
    gains: Mapping[str, float],
    bits: int,
    black: float,
    generator: torch.Generator,
) -> Float[Tensor, "1 1 h w"]:
    """What a sensor gives of a scene, white-balanced, as networks for raw captures meet it.

    Where light is too much for a letter, its samples are at white; the least gain being 1, that is
    1 or more after balancing, and clipped at 1, so that saturated places stay white. A letter of
    less gain is the more sensitive one, and saturates first. Noise below black stays negative.

    Args:
        light: white-balanced and linear; may be more than 1.
        pattern: the CFA at pixel (0, 0).
        noise: of the sensor.
        gains: of each letter's samples, the least of them 1.
        bits, black: of the converter; its white is the largest code.
        generator: where chance comes from, on the device of ``light``.
    """
    height, width = light.shape[2:]
    gain = _by_letter(pattern, gains, light)[:height, :width]
    seen = mosaic(light, pattern) / gain
    if noise.shot > 0.0:
        electrons = seen.clamp_min(0.0) / noise.shot
        seen = torch.poisson(electrons, generator=generator) * noise.shot
    if noise.read > 0.0:
        normal = torch.randn(seen.shape, generator=generator, device=seen.device)
        seen = seen + normal * math.sqrt(noise.read)
    white = float((1 << bits) - 1)
    codes = (seen * (white - black) + black).round().clamp(0.0, white)
    return ((codes - black) / (white - black) * gain).clamp_max(1.0)


def linear_light(coded: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Undo sRGB's tone curve, of values in [0, 1]. Source: IEC 61966-2-1."""
    curved = ((coded.clamp_min(0.04) + 0.055) / 1.055).pow(2.4)
    return torch.where(coded <= LINEAR_PART * LINEAR_SLOPE, coded / LINEAR_SLOPE, curved)


def tone_mapped(linear: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Code by sRGB's curve, which goes on below 0 and above 1: gradients do not end there.

    >>> tone_mapped(torch.tensor([-0.001, 0.0, 1.0]))
    tensor([-0.0129,  0.0000,  1.0000])
    """
    curved = 1.055 * linear.clamp_min(LINEAR_PART).pow(1.0 / 2.4) - 0.055
    return torch.where(linear <= LINEAR_PART, LINEAR_SLOPE * linear, curved)


def _by_letter(
    pattern: CFAPattern, gains: Mapping[str, float], like: Tensor
) -> Float[Tensor, "h2 w2"]:
    tile = torch.tensor(
        [[gains[letter] for letter in row] for row in pattern.tile],
        dtype=like.dtype,
        device=like.device,
    )
    times = [-(-size // period) for size, period in zip(like.shape[2:], tile.shape, strict=True)]
    return tile.repeat(*times)
