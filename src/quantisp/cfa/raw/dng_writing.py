"""DNG files with mosaics of any CFA up to 8x8, written.

Source: Adobe, Digital Negative Specification 1.4.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from jaxtyping import Float

from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw.dng import OURS, white_factor
from quantisp.cfa.raw.tags import COLOURS, LARGEST_TILE_PX, rational
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError

__all__ = ["encode_dng"]

BYTE, SHORT, LONG, RATIONAL, SRATIONAL, DOUBLE, ASCII = 1, 3, 4, 5, 10, 12, 2
D65 = 21

Tag = tuple[int, int, int, Any, bool]


def encode_dng(raw: RawImage) -> bytes:
    """The bytes of a DNG file, not compressed, so that it can be read by mapping it.

    Codes, pattern, levels and orientation come back exactly; neutral and matrix as the nearest
    fractions of 31 bits. A matrix of R, G, B alone gets rows for the other letters, as if the
    pattern's responses were to the camera's own colours, which they are where its neutral is grey.

    Raises:
        ImageError: a tile above 8x8, a letter that DNG does not know, a white level that is no
            whole number, or a matrix that does not fit the pattern.
    """
    import tifffile

    pattern = raw.pattern
    _check(pattern)
    notes = {OURS: {"bits": raw.bits, "metadata": dict(raw.metadata)}}
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        raw.codes,
        photometric=32803,
        metadata=None,
        description=json.dumps(notes),
        software="quantisp",
        extratags=[*_mosaic_tags(raw), *_colour_tags(raw)],
    )
    return stream.getvalue()


def _check(pattern: CFAPattern) -> None:
    if max(pattern.period) > LARGEST_TILE_PX:
        raise ImageError(
            f"expected a CFA of at most {LARGEST_TILE_PX}x{LARGEST_TILE_PX} px for a DNG, found "
            f"{pattern.period[0]}x{pattern.period[1]}: write another format"
        )
    unknown = [letter for letter in pattern.letters if letter not in COLOURS]
    if unknown:
        raise ImageError(
            f"expected CFA letters among {COLOURS} for a DNG, found {unknown[0]}: write another "
            "format"
        )


def _mosaic_tags(raw: RawImage) -> list[Tag]:
    rows, columns = raw.pattern.period
    colours = bytes(COLOURS.index(letter) for row in raw.pattern.tile for letter in row)
    planes = bytes(COLOURS.index(letter) for letter in _planes(raw.pattern))
    height, width = raw.size
    tags: list[Tag] = [
        (50706, BYTE, 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        (50707, BYTE, 4, bytes((1, 2, 0, 0)), True),  # DNGBackwardVersion
        (33421, SHORT, 2, (rows, columns), True),  # CFARepeatPatternDim
        (33422, BYTE, len(colours), colours, True),  # CFAPattern
        (50710, BYTE, len(planes), planes, True),  # CFAPlaneColor
        (50711, SHORT, 1, 1, True),  # CFALayout: rectangular
        (50713, SHORT, 2, (rows, columns), True),  # BlackLevelRepeatDim
        (50714, RATIONAL, len(raw.black), rational(raw.black), True),  # BlackLevel
        (50829, LONG, 4, (0, 0, height, width), True),  # ActiveArea
        (274, SHORT, 1, raw.orientation, True),  # Orientation
    ]
    # WhiteLevel has no fractions; a white level of our own may.
    if raw.white != int(raw.white):
        raise ImageError(
            f"expected a whole white level for a DNG, found {raw.white}: round it, or write "
            "another format"
        )
    tags.append((50717, LONG, 1, int(raw.white), True))
    if raw.noise_profile is not None:
        values = [value for pair in raw.noise_profile for value in pair]
        tags.append((51041, DOUBLE, len(values), tuple(values), True))
    return tags


def _colour_tags(raw: RawImage) -> list[Tag]:
    camera = raw.metadata.get("camera", "quantisp").encode("ascii", "replace").decode()
    tags: list[Tag] = [(50708, ASCII, 0, camera, True)]  # UniqueCameraModel
    for code, key in ((271, "make"), (272, "model")):
        if raw.metadata.get(key):
            tags.append(
                (code, ASCII, 0, raw.metadata[key].encode("ascii", "replace").decode(), True)
            )
    planes = _planes(raw.pattern)
    if raw.as_shot_neutral is not None:
        neutral = _neutral(raw.pattern, raw.as_shot_neutral, planes)
        tags.append((50728, RATIONAL, len(neutral), rational(neutral), True))
    if raw.color_matrix is not None:
        matrix = _matrix(raw.pattern, raw.color_matrix, planes)
        terms = rational(matrix.ravel().tolist())
        tags.append((50721, SRATIONAL, matrix.size, terms, True))  # ColorMatrix1
        tags.append((50778, SHORT, 1, D65, True))  # CalibrationIlluminant1
    return tags


def _planes(pattern: CFAPattern) -> str:
    """R, G, B, whether the tile has them or not, then its other letters."""
    return "RGB" + "".join(letter for letter in pattern.letters if letter not in "RGB")


def _neutral(
    pattern: CFAPattern, rgb: tuple[float, float, float], planes: str
) -> tuple[float, ...]:
    responses = [pattern.response(letter) for letter in planes[3:]]
    others = [sum(w * n for w, n in zip(response, rgb, strict=True)) for response in responses]
    if "W" in planes:
        others[planes[3:].index("W")] = white_factor(pattern, rgb)
    return (*rgb, *others)


def _matrix(
    pattern: CFAPattern, matrix: Float[np.ndarray, "n 3"], planes: str
) -> Float[np.ndarray, "m 3"]:
    if len(matrix) == len(planes):
        return matrix
    if len(matrix) != 3:
        raise ImageError(
            f"expected a colour matrix of 3 or {len(planes)} rows for {pattern}, found "
            f"{len(matrix)}: correct it"
        )
    others = [np.array(pattern.response(letter)) @ matrix for letter in planes[3:]]
    return np.array([*matrix, *others])
