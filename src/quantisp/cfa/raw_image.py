"""One raw capture: the sensor's codes, and what is needed to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Float32, UInt16

from quantisp.cfa.patterns import CFAPattern
from quantisp.errors import ImageError

__all__ = ["RawImage", "linear"]

MAX_BITS = 16
ORIENTATIONS = range(1, 9)


@dataclass(frozen=True, kw_only=True, eq=False)
class RawImage:
    """One capture: sensor codes and what is needed to read them.

    Args:
        codes: the visible (active) area only, in file orientation.
        pattern: the CFA at pixel (0, 0) of ``codes``.
        black: one level for each position of the pattern's tile, row by row, in codes.
        white: the saturation level, in codes, the same for all positions.
        bits: of the sensor's converter, 1 to 16.
        as_shot_neutral: the camera's RGB of a neutral surface, as in DNG AsShotNeutral.
        color_matrix: XYZ to camera, as in DNG ColorMatrix1.
        orientation: EXIF 1 to 8.
        noise_profile: (S, O) for each plane or for all, as in DNG NoiseProfile: the variance of
            linear values in [0, 1] is S x + O.
        metadata: camera, ISO and the like, for people.

    Raises:
        ImageError: levels that do not fit the pattern, or a value that means nothing.
    """

    codes: UInt16[np.ndarray, "h w"]
    pattern: CFAPattern
    black: tuple[float, ...]
    white: float
    bits: int
    as_shot_neutral: tuple[float, float, float] | None = None
    color_matrix: Float[np.ndarray, "n 3"] | None = None
    orientation: int = 1
    noise_profile: tuple[tuple[float, float], ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for complaint in _complaints(self):
            raise ImageError(complaint)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.codes.shape[0], self.codes.shape[1]


def linear(raw: RawImage) -> Float32[np.ndarray, "h w"]:
    """The codes as linear light: (codes - black) / (white - black) by position, not clipped.

    Noise below black stays negative, and what lies above the white level stays above 1.
    """
    height, width = raw.size
    period_y, period_x = raw.pattern.period
    values = np.empty((height, width), dtype=np.float32)
    for position, black in enumerate(raw.black):
        y, x = divmod(position, period_x)
        sites = raw.codes[y::period_y, x::period_x].astype(np.float32)
        sites -= np.float32(black)
        values[y::period_y, x::period_x] = sites / np.float32(raw.white - black)
    return values


def _complaints(raw: RawImage) -> list[str]:
    found: list[str] = []
    codes, positions = raw.codes, raw.pattern.period[0] * raw.pattern.period[1]
    if codes.ndim != 2 or codes.dtype != np.uint16 or codes.size == 0:
        found.append(
            f"expected codes as uint16 [H, W], found {codes.dtype} {list(codes.shape)}: "
            "convert them"
        )
    if len(raw.black) != positions:
        found.append(
            f"expected {positions} black levels, one for each position of {raw.pattern}, "
            f"found {len(raw.black)}: repeat the level"
        )
    if not all(math.isfinite(level) for level in (*raw.black, raw.white)):
        found.append(
            f"expected finite levels, found black {raw.black}, white {raw.white}: correct them"
        )
    elif any(black >= raw.white for black in raw.black):
        found.append(
            f"expected black levels below the white level {raw.white:g}, found "
            f"{max(raw.black):g}: correct them"
        )
    if not 1 <= raw.bits <= MAX_BITS:
        found.append(f"expected 1 to {MAX_BITS} bits, found {raw.bits}: correct the bits")
    if raw.orientation not in ORIENTATIONS:
        found.append(f"expected an EXIF orientation of 1 to 8, found {raw.orientation}: correct it")
    return found + _colour_complaints(raw)


def _colour_complaints(raw: RawImage) -> list[str]:
    found: list[str] = []
    neutral, matrix = raw.as_shot_neutral, raw.color_matrix
    if neutral is not None and not all(0 < value < math.inf for value in neutral):
        found.append(f"expected a neutral of values above 0, found {neutral}: correct it")
    if matrix is not None and (len(matrix) < 3 or not bool(np.isfinite(matrix).all())):
        found.append(
            "expected a colour matrix of 3 rows or more, finite, found another: correct it"
        )
    pairs = raw.noise_profile or ()
    if not all(0 <= value < math.inf for pair in pairs for value in pair):
        found.append(f"expected a noise profile from 0 on, found {pairs[:4]}: correct it")
    return found
