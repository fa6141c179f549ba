"""A capture's samples as networks meet them: levels and white balance."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from quantisp.cfa.color import letter_gains
from quantisp.cfa.patterns import RGB
from quantisp.cfa.raw_image import RawImage

__all__ = ["balance", "balanced"]


def balance(
    raw: RawImage, neutral: RGB
) -> tuple[Float32[np.ndarray, "y x"], Float32[np.ndarray, "y x"]]:
    """For each position of the tile, what is taken from its codes and what they are then times.

    Args:
        raw: the capture.
        neutral: the camera's R, G and B of a neutral surface, above 0.
    """
    gains = letter_gains(raw.pattern, neutral)
    black = np.array(raw.black, dtype=np.float64).reshape(raw.pattern.period)
    gain = np.array([[gains[letter] for letter in row] for row in raw.pattern.tile])
    return black.astype(np.float32), (gain / (raw.white - black)).astype(np.float32)


def balanced(raw: RawImage, neutral: RGB) -> Float32[np.ndarray, "h w"]:
    """Linear, white-balanced samples, clipped at 1, so that saturated places stay white.

    Noise below black stays negative.
    """
    black, scale = balance(raw, neutral)
    tall, wide = raw.pattern.period
    values = np.empty(raw.size, dtype=np.float32)
    for y in range(tall):
        for x in range(wide):
            sites = raw.codes[y::tall, x::wide].astype(np.float32)
            values[y::tall, x::wide] = (sites - black[y, x]) * scale[y, x]
    return np.minimum(values, np.float32(1.0))
