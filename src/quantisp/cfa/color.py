"""From a camera's linear colours to sRGB: white balance, colour matrix, tone curve.

Sources: Adobe, Digital Negative Specification 1.4, chapter 6 (ColorMatrix1 takes XYZ to the
camera's colours; AsShotNeutral is the camera's colour of a neutral surface); IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from quantisp.cfa.patterns import RGB, CFAPattern
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

__all__ = [
    "balanced_pattern",
    "camera_to_srgb",
    "decode_srgb",
    "encode_srgb",
    "grey_world_neutral",
    "letter_gains",
    "most_collected",
]

# Linear sRGB to XYZ, of its white D65.
SRGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
LINEAR_PART, LINEAR_SLOPE = 0.0031308, 12.92
# Rows that grey world sums at a time, in periods.
PERIODS_AT_ONCE = 64
# A colour that is fainter than this has no signal to balance.
LEAST_SIGNAL = 1e-6


def letter_gains(pattern: CFAPattern, neutral: RGB) -> dict[str, float]:
    """What each letter's linear samples are multiplied by, so that a neutral surface is grey.

    The least gain is 1, so that what saturates any sample still reaches 1 afterwards.

    Args:
        pattern: of its responses, here their sums over the neutral count; their proportions are
            those of the balanced colours, see :func:`balanced_pattern`.
        neutral: the camera's R, G and B of a neutral surface, above 0.
    """
    most = most_collected(pattern, neutral)
    return {c: most / _collected(pattern.response(c), neutral) for c in pattern.letters}


def most_collected(pattern: CFAPattern, neutral: RGB) -> float:
    """What the most sensitive letter collects of a neutral surface; arguments as above."""
    return max(_collected(pattern.response(c), neutral) for c in pattern.letters)


def balanced_pattern(pattern: CFAPattern) -> CFAPattern:
    """The CFA in terms of balanced colours: each letter's balanced sample is a mean of R, G, B.

    How much more a letter collects in all is in its gain; what is left is how it weighs colours.
    """
    responses = tuple((c, _mean(pattern.response(c))) for c in pattern.letters)
    return CFAPattern(tile=pattern.tile, responses=responses).recognised()


def _mean(response: RGB) -> RGB:
    total = sum(response)
    # Thirds come out a rounding away from thirds.
    red, green, blue = (round(weight / total, 9) for weight in response)
    thirds = all(abs(weight - 1.0 / 3.0) < 1e-6 for weight in (red, green, blue))
    return (1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0) if thirds else (red, green, blue)


def _collected(response: RGB, neutral: RGB) -> float:
    return sum(w * n for w, n in zip(response, neutral, strict=True))


def grey_world_neutral(raw: RawImage) -> RGB:
    """The mean of each colour over the capture, as if its whole were neutral; saturated ones count.

    Source: Buchsbaum, "A spatial processor model for object colour perception", 1980.

    Raises:
        ImageError: a colour has no signal, or the CFA lacks R, G or B.
    """
    height, width = raw.pattern.period
    sums, counts = np.zeros(height * width), np.zeros(height * width)
    step = PERIODS_AT_ONCE * height
    for top in range(0, raw.size[0], step):
        rows = raw.codes[top : top + step]
        for position in range(height * width):
            sites = rows[position // width :: height, position % width :: width]
            sums[position] += float(sites.sum(dtype=np.int64))
            counts[position] += sites.size
    black = np.array(raw.black)
    means = (sums / np.maximum(counts, 1) - black) / (raw.white - black)
    letters = "".join(raw.pattern.tile)
    missing = [c for c in "RGB" if c not in letters]
    if missing:
        raise ImageError(
            f"expected a CFA with R, G and B for grey world, {raw.pattern} lacks "
            f"{' '.join(missing)}: give --white-balance r,g,b"
        )
    of = {c: float(means[[n for n, x in enumerate(letters) if x == c]].mean()) for c in "RGB"}
    if min(of.values()) < LEAST_SIGNAL:
        raise ImageError(
            f"expected signal in R, G and B for grey world, found means of "
            f"{of['R']:.2g}, {of['G']:.2g}, {of['B']:.2g} of full scale: check --black, or give "
            "--white-balance r,g,b"
        )
    largest = max(of.values())
    return of["R"] / largest, of["G"] / largest, of["B"] / largest


def camera_to_srgb(color_matrix: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3 3"]:
    """From a camera's balanced linear R, G, B to linear sRGB; white stays white.

    Args:
        color_matrix: XYZ to camera, as ColorMatrix1; its first three rows are of R, G and B.

    Raises:
        ImageError: it cannot be inverted, or gives no white.
    """
    from_srgb = np.asarray(color_matrix, dtype=np.float64)[:3] @ SRGB_TO_XYZ
    sums = from_srgb.sum(axis=1, keepdims=True)
    # Balanced colours of white are (1, 1, 1).
    if (
        from_srgb.shape != (3, 3)
        or not np.isfinite(from_srgb).all()
        or (sums <= 0.0).any()
        or np.linalg.cond(from_srgb / sums) > 1e6
    ):
        raise ImageError(
            f"expected a colour matrix from XYZ to the camera, found {color_matrix.tolist()}, "
            "which leads to no sRGB: correct ColorMatrix1"
        )
    return np.linalg.inv(from_srgb / sums)


def encode_srgb(linear: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The tone curve of sRGB; below 0 is 0, above 1 is 1."""
    clipped = linear.clamp(0.0, 1.0)
    curved = 1.055 * _power(clipped.clamp_min(LINEAR_PART), 1.0 / 2.4) - 0.055
    return torch.where(clipped <= LINEAR_PART, LINEAR_SLOPE * clipped, curved)


def decode_srgb(coded: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The inverse of :func:`encode_srgb`."""
    clipped = coded.clamp(0.0, 1.0)
    curved = _power((clipped.clamp_min(0.04) + 0.055) / 1.055, 2.4)
    return torch.where(clipped <= LINEAR_PART * LINEAR_SLOPE, clipped / LINEAR_SLOPE, curved)


def _power(base: Tensor, exponent: float) -> Tensor:
    """By NumPy: PyTorch's last few elements of a block are rounded otherwise than the others.

    Which elements those are depends on the size of a tile.
    """
    values = base.contiguous().numpy()
    return torch.from_numpy(np.power(values, values.dtype.type(exponent)))
