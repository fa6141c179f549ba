"""Values of TIFF tags as numbers, and colours as DNG numbers them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from quantisp.cfa.patterns import CFAPattern
from quantisp.errors import ImageError, PatternError

__all__ = ["COLOURS", "LARGEST_TILE_PX", "numbers", "pattern_of", "planes_of", "rational"]

# DNG's number of a colour is its place: red, green, blue, cyan, magenta, yellow, white.
COLOURS = "RGBCMYW"
LARGEST_TILE_PX = 8
# Values of TIFF tags that are stored as pairs of integers, and the largest of these.
RATIONAL = (5, 10)
LARGEST_TERM = (1 << 31) - 1


def numbers(page: Any, name: str, count: int | None, default: list[float] | None) -> list[float]:
    """A tag's values, rationals divided.

    Args:
        page: tifffile's.
        name: of the tag.
        count: that there have to be; None takes any.
        default: where there is no such tag; None refuses that.

    Raises:
        ImageError: what was found, for a message to name.
    """
    tag: Any = page.tags.get(name)
    if tag is None:
        if default is None:
            raise ImageError(f"no {name}")
        return default
    value: Any = tag.value
    stored: list[Any] = list(value) if isinstance(value, (tuple, bytes)) else [value]
    if int(tag.dtype) in RATIONAL:
        pairs = zip(stored[::2], stored[1::2], strict=True)
        stored = [top / bottom if bottom else math.nan for top, bottom in pairs]
    values = [float(number) for number in stored]
    wrong = count is not None and len(values) != count
    if wrong or not all(math.isfinite(number) for number in values):
        raise ImageError(f"{name} of {len(values)} values, {values[:8]} first")
    return values


def pattern_of(page: Any) -> CFAPattern:
    """The CFA that a page's tags describe, at the first pixel of its active area.

    Raises:
        ImageError: no CFA, or none of colours that have letters.
    """
    rows, columns = (int(n) for n in numbers(page, "CFARepeatPatternDim", 2, None))
    if not (1 <= rows <= LARGEST_TILE_PX and 1 <= columns <= LARGEST_TILE_PX):
        raise ImageError(f"a CFA that repeats every {rows}x{columns} px")
    colours = [int(n) for n in numbers(page, "CFAPattern", rows * columns, None)]
    planes = planes_of(page)
    if int(numbers(page, "CFALayout", 1, [1.0])[0]) != 1:
        raise ImageError("a CFA that is not a rectangular grid")
    if not all(0 <= n < len(COLOURS) and COLOURS[n] in planes for n in colours):
        raise ImageError(f"the CFA {colours} of the colours {planes}")
    letters = "".join(COLOURS[colour] for colour in colours)
    tile = tuple(letters[top : top + columns] for top in range(0, len(letters), columns))
    try:
        return CFAPattern(smallest(tile)).recognised()
    except PatternError as error:
        raise ImageError(f"the CFA {'/'.join(tile)}") from error


def smallest(tile: tuple[str, ...]) -> tuple[str, ...]:
    """The same pattern by its smallest period: cameras give 2x2 tiles as 4x4 ones."""
    rows, columns = len(tile), len(tile[0])
    for period in range(1, rows):
        if rows % period == 0 and tile == tile[:period] * (rows // period):
            tile = tile[:period]
            break
    for period in range(1, columns):
        if columns % period == 0 and all(row == row[:period] * (columns // period) for row in tile):
            return tuple(row[:period] for row in tile)
    return tile


def planes_of(page: Any) -> str:
    """The letters of the colour planes, in the order of neutrals and matrices.

    Raises:
        ImageError: colours that have no letters, or one twice.
    """
    stored = [int(n) for n in numbers(page, "CFAPlaneColor", None, [0.0, 1.0, 2.0])]
    if not all(0 <= n < len(COLOURS) for n in stored) or len(set(stored)) < len(stored):
        raise ImageError(f"the colour planes {stored[:8]}")
    return "".join(COLOURS[colour] for colour in stored)


def rational(values: Iterable[float]) -> tuple[int, ...]:
    """Numerators and denominators of 31 bits, the nearest that there are."""
    terms: list[int] = []
    for value in values:
        # Of a large value the numerator bounds the denominator.
        most = max(1, int(LARGEST_TERM / max(1.0, abs(value))))
        nearest = Fraction(value).limit_denominator(most)
        terms += [nearest.numerator, nearest.denominator]
    return tuple(terms)
