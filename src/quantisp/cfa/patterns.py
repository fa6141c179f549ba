"""Colour filter arrays as frozen data: a tile of letters and what each letter sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from quantisp.errors import PatternError

__all__ = ["CFAPattern", "named_patterns", "parse_pattern"]

RGB = tuple[float, float, float]

THIRD = 1.0 / 3.0
# What each filter letter collects of (R, G, B). W is the panchromatic mean; C, M and Y are the
# means of the two primaries that they pass.
DEFAULT_RESPONSES: Mapping[str, RGB] = MappingProxyType(
    {
        "R": (1.0, 0.0, 0.0),
        "G": (0.0, 1.0, 0.0),
        "B": (0.0, 0.0, 1.0),
        "W": (THIRD, THIRD, THIRD),
        "C": (0.0, 0.5, 0.5),
        "M": (0.5, 0.0, 0.5),
        "Y": (0.5, 0.5, 0.0),
    }
)
MAX_PERIOD_PX = 16


@dataclass(frozen=True)
class CFAPattern:
    """A colour filter array: the tile at pixel (0, 0), repeated over the sensor.

    Args:
        tile: rows of letters, from the top-left of the visible area. Any period up to 16x16.
        name: for people; two patterns with the same tile and responses are equal whatever
            their names.
        responses: what a letter collects of (R, G, B), for letters whose default does not hold.

    Raises:
        PatternError: rows of unequal length, no rows, a letter without a response, or a response
            that is not three finite numbers.

    >>> CFAPattern.named("bayer").crop(top=0, left=1).tile
    ('GR', 'BG')
    """

    tile: tuple[str, ...]
    name: str = field(default="custom", compare=False)
    responses: tuple[tuple[str, RGB], ...] = ()

    def __post_init__(self) -> None:
        if not self.tile or not self.tile[0] or len({len(row) for row in self.tile}) != 1:
            raise PatternError(
                f"a CFA tile needs rows of equal length, found {'/'.join(self.tile) or 'nothing'}: "
                "write it like RGGB or WBWG/BWGW/WGWR/GWRW"
            )
        if max(self.period) > MAX_PERIOD_PX:
            raise PatternError(
                f"a CFA tile may repeat every {MAX_PERIOD_PX} px at most, this one is "
                f"{self.period[0]}x{self.period[1]}: give one period only"
            )
        given = dict(self.responses)
        for letter in self.letters:
            if letter not in given and letter not in DEFAULT_RESPONSES:
                raise PatternError(
                    f"expected CFA letters among {' '.join(DEFAULT_RESPONSES)}, found {letter!r}: "
                    "correct the tile, or give the letter's response to (R, G, B)"
                )
        for letter, rgb in self.responses:
            if len(rgb) != 3 or not all(math.isfinite(weight) for weight in rgb):
                raise PatternError(
                    f"the response of {letter!r} to (R, G, B) needs three finite numbers, "
                    f"found {rgb}: correct them"
                )
        # Only responses that say something beyond the defaults are kept, in one order, so that
        # equal patterns compare equal.
        kept = tuple(
            (letter, (float(rgb[0]), float(rgb[1]), float(rgb[2])))
            for letter, rgb in sorted(given.items())
            if letter in self.letters and tuple(rgb) != DEFAULT_RESPONSES.get(letter)
        )
        object.__setattr__(self, "responses", kept)

    @classmethod
    def named(cls, name: str) -> CFAPattern:
        """The pattern registered under ``name``, such as ``rgbw-kodak``.

        Raises:
            PatternError: there is no pattern of that name.
        """
        try:
            return NAMED[name]
        except KeyError:
            raise PatternError(
                f"no CFA is called {name!r}: choose one of {', '.join(NAMED)}, or write a tile "
                "like WBWG/BWGW/WGWR/GWRW"
            ) from None

    @property
    def period(self) -> tuple[int, int]:
        """Height and width of the tile, in px."""
        return len(self.tile), len(self.tile[0])

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters that occur: R, G, B, W first, then the others by alphabet."""
        found = set("".join(self.tile))
        return tuple(sorted(found, key=lambda c: ("RGBW".find(c) if c in "RGBW" else 4, c)))

    def letter(self, y: int, x: int) -> str:
        """The filter at row ``y``, column ``x``; negative coordinates continue the pattern."""
        period_y, period_x = self.period
        return self.tile[y % period_y][x % period_x]

    def response(self, letter: str) -> RGB:
        """What ``letter`` collects of (R, G, B)."""
        return dict(self.responses).get(letter) or DEFAULT_RESPONSES[letter]

    def with_white(self, weights: RGB) -> CFAPattern:
        """The same tile with W = weights . (R, G, B)."""
        others = tuple((letter, rgb) for letter, rgb in self.responses if letter != "W")
        changed = replace(self, name="custom", responses=(*others, ("W", weights)))
        return changed.recognised()

    def crop(self, *, top: int, left: int) -> CFAPattern:
        """The pattern of a picture whose first ``top`` rows and ``left`` columns were cut off."""
        return self._resampled(lambda y, x: (y + top, x + left), self.period)

    def flip(self, *, vertical: bool, size: int) -> CFAPattern:
        """The pattern of the picture flipped.

        Args:
            vertical: True swaps top and bottom, False swaps left and right.
            size: the picture's height (vertical) or width in px, which decides the phase.
        """
        if vertical:
            return self._resampled(lambda y, x: (size - 1 - y, x), self.period)
        return self._resampled(lambda y, x: (y, size - 1 - x), self.period)

    def rotate(self, *, height: int, width: int, quarter_turns: int = 1) -> CFAPattern:
        """The pattern of the picture turned counter-clockwise, as ``torch.rot90`` turns it.

        Args:
            height, width: of the picture before it is turned, in px.
            quarter_turns: how often it is turned by 90 degrees.
        """
        turned = self
        for _ in range(quarter_turns % 4):
            turned = turned._quarter_turn(width)
            height, width = width, height
        return turned

    def _quarter_turn(self, width: int) -> CFAPattern:
        return self._resampled(lambda y, x: (x, width - 1 - y), (self.period[1], self.period[0]))

    def _resampled(
        self, source: Callable[[int, int], tuple[int, int]], period: tuple[int, int]
    ) -> CFAPattern:
        rows = tuple(
            "".join(self.letter(*source(y, x)) for x in range(period[1])) for y in range(period[0])
        )
        return replace(self, tile=rows, name="custom").recognised()

    def recognised(self) -> CFAPattern:
        """The same pattern under the name of the known pattern that equals it, if there is one."""
        return next((known for known in NAMED.values() if known == self), self)

    def __str__(self) -> str:
        return self.name if self.name != "custom" else "/".join(self.tile)


def parse_pattern(text: str) -> CFAPattern:
    """A pattern from a name (``rgbw-kodak``) or from letters (``RGGB``, ``WBWG/BWGW/WGWR/GWRW``).

    Four letters without a slash are a 2x2 tile, row by row.

    Raises:
        PatternError: neither a name nor a tile.
    """
    if text in NAMED:
        return NAMED[text]
    letters = text.replace(" ", "/").upper()
    if "/" not in letters and len(letters) == 4 and letters.isalpha():
        letters = f"{letters[:2]}/{letters[2:]}"
    if "/" not in letters or not letters.replace("/", "").isalpha():
        return CFAPattern.named(text)
    return CFAPattern(tuple(row for row in letters.split("/") if row)).recognised()


def _doubled(tile: tuple[str, ...], times: int) -> tuple[str, ...]:
    return tuple("".join(c * times for c in row) for row in tile for _ in range(times))


BAYER = ("RG", "GB")
# rgbw-kodak: Kijima, Compton, Hamilton, US 2007/0177236; Kumar et al., ICIP 2009.
# x-trans: Fujifilm, US 2013/0021508.
NAMED: Mapping[str, CFAPattern] = MappingProxyType(
    {
        name: CFAPattern(tile=tile, name=name)
        for name, tile in {
            "rgbw-kodak": ("WBWG", "BWGW", "WGWR", "GWRW"),
            "rgbw-mipi": ("GWBW", "WGWB", "RWGW", "WRWG"),
            "rgbw-sony": ("WBWG", "RWGW", "WGWB", "GWRW"),
            "rgbw-yamagami": ("BWRW", "WGWG", "RWBW", "WGWG"),
            "rgbw-gindele": ("GR", "BW"),
            "rgbw-aptina": ("RW", "WB"),
            "bayer": BAYER,
            "quad-bayer": _doubled(BAYER, 2),
            "nona-bayer": _doubled(BAYER, 3),
            "x-trans": ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG"),
        }.items()
    }
)


def named_patterns() -> tuple[CFAPattern, ...]:
    """Every pattern that has a name."""
    return tuple(NAMED.values())
