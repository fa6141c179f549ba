"""A capture's samples as networks meet them: levels and white balance."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from quantisp.cfa.color import grey_world_neutral, letter_gains
from quantisp.cfa.patterns import RGB
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, SettingError

__all__ = ["balance", "balanced", "find_neutral", "parse_gains"]

# Of white-balance gains, largest to smallest; beyond it there is no signal.
LARGEST_BALANCE = 1000.0


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


def find_neutral(
    raw: RawImage, white_balance: str | None
) -> tuple[tuple[float, float, float], str]:
    """The camera's colour of a neutral surface, and in a word where it comes from.

    Args:
        raw: the capture.
        white_balance: ``as-shot``, ``grey-world``, or the gains of R, G and B as three numbers;
            None is as shot where the capture says it, else grey world.

    Raises:
        ImageError: the capture does not say it, or a colour has no signal.
        SettingError: no such white balance.
    """
    if white_balance == "grey-world" or (white_balance is None and raw.as_shot_neutral is None):
        return grey_world_neutral(raw), "grey world"
    if white_balance in ("as-shot", None):
        neutral = raw.as_shot_neutral
        if neutral is None:
            raise ImageError(
                "expected a capture that says its white balance, found none in it: pass "
                "--white-balance grey-world, or gains like 2,1,1.5"
            )
        # Files may say anything.
        if not min(neutral) > 0.0 or max(neutral) > LARGEST_BALANCE * min(neutral):
            raise ImageError(
                f"expected an as-shot neutral above 0, its largest at most {LARGEST_BALANCE:g} "
                f"times its least, found {neutral}: pass --white-balance grey-world, or gains like "
                "2,1,1.5"
            )
        return neutral, "as shot"
    red, green, blue = parse_gains(white_balance)
    least = min(red, green, blue)
    return (least / red, least / green, least / blue), "given"


def parse_gains(text: str) -> tuple[float, float, float]:
    """Three numbers above 0, like ``2,1,1.5``.

    Raises:
        SettingError: something else.
    """
    try:
        red, green, blue = (float(gain) for gain in text.split(","))
    except ValueError:
        red = green = blue = math.nan
    gains = (red, green, blue)
    known = all(math.isfinite(gain) for gain in gains)
    if not (known and min(gains) > 0.0 and max(gains) <= LARGEST_BALANCE * min(gains)):
        raise SettingError(
            f"expected as-shot, grey-world or three gains like 2,1,1.5, found {text!r}: correct "
            "--white-balance"
        )
    return gains
