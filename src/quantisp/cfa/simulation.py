"""A capture of any CFA, from a linear picture: what the sensor behind it would give.

::

    linear RGB, white-balanced ──▶ exposure ──▶ each filter's share ──▶ divided by the white balance
                                                                               │
    codes ◀── black, rounded, clipped at white ◀── noise ◀─────────────────────┘

The sample of a letter L is n_L (w_L . RGB) / sum(w_L): w_L is the pattern's response, n_L = w_L . n
what L collects of a neutral surface, n the camera's neutral (as DNG's AsShotNeutral). Divided by
n_L, it is the mosaic that networks expect. A white of larger response saturates before the colours
do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt16

from quantisp.cfa.noise import NoiseModel, add_noise
from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw_image import RawImage, linear
from quantisp.errors import ImageError, SettingError

__all__ = [
    "SRGB_MATRIX",
    "SensorSettings",
    "bin_bayer",
    "grey_world",
    "saturated",
    "simulate_raw",
    "srgb_to_linear",
]

# XYZ to linear sRGB, white D65. Source: IEC 61966-2-1.
SRGB_MATRIX = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)
LARGEST_EXPOSURE_EV = 16.0
LARGEST_GAIN = 64.0
NEUTRAL = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class SensorSettings:
    """The sensor that is simulated.

    Args:
        pattern: its CFA; the response of W says how sensitive W is.
        bits: of its converter; white is the largest code.
        black: the level without light, in codes.
        exposure_ev: the scene's light is multiplied by 2 to this power.
        noise: its noise; None is none.
        seed: of the noise.

    Raises:
        SettingError: a value out of range.
    """

    pattern: CFAPattern
    bits: int = 10
    black: float = 64.0
    exposure_ev: float = 0.0
    noise: NoiseModel | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise SettingError(f"expected 2 to 16 bits, found {self.bits}: correct --bits")
        if not 0 <= self.black < self.white:
            raise SettingError(
                f"expected a black level from 0 to below {self.white:g}, the white of {self.bits} "
                f"bits, found {self.black:g}: correct --black"
            )
        if not abs(self.exposure_ev) <= LARGEST_EXPOSURE_EV:
            raise SettingError(
                f"expected an exposure of -16 to 16 EV, found {self.exposure_ev:g}: correct it"
            )
        if not 0 <= self.seed < 1 << 63:
            raise SettingError(f"expected a seed from 0 on, found {self.seed}: correct --seed")
        dark = [c for c in self.pattern.letters if not sum(self.pattern.response(c)) > 0]
        if dark:
            raise SettingError(
                f"expected responses with positive sums, found {self.pattern.response(dark[0])} of "
                f"{dark[0]}: correct the pattern"
            )

    @property
    def white(self) -> float:
        """The level of saturation, in codes."""
        return float((1 << self.bits) - 1)


def simulate_raw(
    rgb: Float32[np.ndarray, "h w 3"],
    settings: SensorSettings,
    *,
    neutral: tuple[float, float, float] = NEUTRAL,
    color_matrix: Float[np.ndarray, "3 3"] | None = None,
    orientation: int = 1,
    metadata: dict[str, str] | None = None,
) -> RawImage:
    """What a sensor gives of a scene.

    Args:
        rgb: linear light, white-balanced, so that a neutral surface has equal values; 1 is what
            saturates the most sensitive colour at 0 EV.
        settings: of the sensor.
        neutral: the camera's RGB of a neutral surface, above 0.
        color_matrix: XYZ to camera RGB; gets a row for each further letter.
        orientation: EXIF 1 to 8, handed on.
        metadata: handed on.

    Raises:
        ImageError: a picture smaller than a tile, or values that are not finite.
    """
    pattern, noise = settings.pattern, settings.noise
    height, width = rgb.shape[:2]
    if height < pattern.period[0] or width < pattern.period[1]:
        raise ImageError(
            f"expected a picture of at least one tile of {pattern} "
            f"({pattern.period[0]}x{pattern.period[1]} px), found {height}x{width} px: leave it out"
        )
    if not bool(np.isfinite(rgb).all()):
        raise ImageError("expected finite values, found NaN or infinity: leave the picture out")
    samples = _samples(rgb, pattern, neutral) * np.float32(2.0**settings.exposure_ev)
    if noise is not None:
        samples = add_noise(samples, noise, np.random.default_rng(settings.seed))
    return RawImage(
        codes=_codes(samples, settings),
        pattern=pattern,
        black=(settings.black,) * (pattern.period[0] * pattern.period[1]),
        white=settings.white,
        bits=settings.bits,
        as_shot_neutral=neutral,
        color_matrix=None if color_matrix is None else _rows(color_matrix, pattern, neutral),
        orientation=orientation,
        noise_profile=None if noise is None else ((noise.shot, noise.read),),
        metadata=metadata or {},
    )


def saturated(raw: RawImage) -> dict[str, float]:
    """The share of each letter's samples that are at the white level or above."""
    period_y, period_x = raw.pattern.period
    counts = {letter: [0, 0] for letter in raw.pattern.letters}
    for y in range(period_y):
        for x in range(period_x):
            sites = raw.codes[y::period_y, x::period_x]
            count = counts[raw.pattern.letter(y, x)]
            count[0] += int((sites >= raw.white).sum())
            count[1] += sites.size
    return {letter: full / max(sites, 1) for letter, (full, sites) in counts.items()}


def bin_bayer(raw: RawImage) -> Float32[np.ndarray, "h2 w2 3"]:
    """Linear camera RGB, one pixel for each 2x2 cell, in which nothing is interpolated.

    G is the mean of its two samples; an odd row or column at the end is left out.

    Raises:
        ImageError: the CFA is not Bayer's.
    """
    if raw.pattern.period != (2, 2) or sorted("".join(raw.pattern.tile)) != sorted("RGGB"):
        raise ImageError(
            f"expected a Bayer capture to bin to RGB, found {raw.pattern}: give an RGB picture, or "
            "a Bayer capture"
        )
    height, width = (size // 2 for size in raw.size)
    if height == 0 or width == 0:
        raise ImageError(f"expected at least 2x2 px, found {raw.size[0]}x{raw.size[1]}")
    values = linear(raw)
    rgb = np.zeros((height, width, 3), dtype=np.float32)
    for y, row in enumerate(raw.pattern.tile):
        for x, letter in enumerate(row):
            weight = np.float32(0.5 if letter == "G" else 1.0)
            cells = values[y : 2 * height : 2, x : 2 * width : 2]
            rgb[:, :, "RGB".index(letter)] += weight * cells
    return rgb


def grey_world(rgb: Float32[np.ndarray, "h w 3"]) -> tuple[float, float, float]:
    """The neutral of a scene that is grey in the mean, where nothing is saturated; G is 1.

    Raises:
        ImageError: a colour has no light.
    """
    inside = rgb[(rgb < 1.0).all(axis=2)]
    means = [float(v) for v in (inside.mean(axis=0) if len(inside) else rgb.mean(axis=(0, 1)))]
    red, green, blue = means
    if not min(means) > 1e-4 * max(means):
        raise ImageError(
            f"expected light in R, G and B to find the white balance, found means {red:.2g} "
            f"{green:.2g} {blue:.2g}: give --white-balance-gains"
        )
    return (red / green, 1.0, blue / green)


def srgb_to_linear(values: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """From [0, 1] to [0, 1]. Source: IEC 61966-2-1."""
    curve = np.power((values + np.float32(0.055)) / np.float32(1.055), np.float32(2.4))
    return np.where(values <= np.float32(0.04045), values / np.float32(12.92), curve)


def _samples(
    rgb: Float32[np.ndarray, "h w 3"], pattern: CFAPattern, neutral: tuple[float, float, float]
) -> Float32[np.ndarray, "h w"]:
    samples = np.empty(rgb.shape[:2], dtype=np.float32)
    period_y, period_x = pattern.period
    for y in range(period_y):
        for x in range(period_x):
            weights = pattern.response(pattern.letter(y, x))
            level = math.fsum(w * n for w, n in zip(weights, neutral, strict=True))
            shares = np.array(weights, dtype=np.float32) * np.float32(level / sum(weights))
            samples[y::period_y, x::period_x] = rgb[y::period_y, x::period_x] @ shares
    return samples


def _codes(
    samples: Float32[np.ndarray, "h w"], settings: SensorSettings
) -> UInt16[np.ndarray, "h w"]:
    levels = samples * np.float32(settings.white - settings.black)
    levels += np.float32(settings.black)
    return np.clip(np.rint(levels), 0.0, settings.white).astype(np.uint16)


def _rows(
    matrix: Float[np.ndarray, "3 3"], pattern: CFAPattern, neutral: tuple[float, float, float]
) -> Float[np.ndarray, "n 3"]:
    """A row for each letter beside R, G, B: by its share of the balanced colours."""
    rows = [*matrix]
    for letter in pattern.letters:
        if letter not in "RGB":
            weights = np.array(pattern.response(letter))
            level = float(weights @ np.array(neutral))
            rows.append(level / weights.sum() * weights @ (matrix / np.array(neutral)[:, None]))
    return np.array(rows)
