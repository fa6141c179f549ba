"""Options that describe a raw file without a header, or what a file does not say of itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.cfa.raw import RawOptions

__all__ = [
    "BitsOption",
    "BlackOption",
    "HeightOption",
    "PackingOption",
    "PatternOption",
    "StrideOption",
    "WhiteOption",
    "WidthOption",
    "parse_numbers",
    "raw_options",
]

WidthOption = Annotated[int | None, typer.Option(help="Of a raw file without a header, in px.")]
HeightOption = Annotated[int | None, typer.Option(help="Of a raw file without a header, in px.")]
PackingOption = Annotated[
    str | None,
    typer.Option(
        help="Of a raw file without a header: raw10, raw12, plain16, plain16-msb or plain8."
    ),
]
StrideOption = Annotated[
    int | None,
    typer.Option(help="Bytes from row to row, without a header.", show_default="no padding"),
]
PatternOption = Annotated[
    str | None, typer.Option(help="CFA at the first pixel of a raw file: a name, or a tile.")
]
BitsOption = Annotated[int | None, typer.Option(help="Bits of a raw file's samples.")]
BlackOption = Annotated[
    str | None, typer.Option(help="Black level, or one for each position: 200 or 64,64,60,64.")
]
WhiteOption = Annotated[float | None, typer.Option(help="White level, in codes.")]


def raw_options(
    *,
    width: int | None,
    height: int | None,
    packing: str | None,
    stride: int | None,
    pattern: str | None,
    bits: int | None,
    black: str | None,
    white: float | None,
) -> RawOptions:
    """What the options say.

    Raises:
        SettingError, PatternError: a value that means nothing.
    """
    from quantisp.cfa import parse_pattern
    from quantisp.cfa.raw import PACKINGS, RawOptions

    if packing is not None and packing not in PACKINGS:
        raise SettingError(
            f"expected a packing among {', '.join(PACKINGS)}, found {packing!r}: correct --packing"
        )
    chosen: Any = packing
    return RawOptions(
        width=width,
        height=height,
        packing=chosen,
        stride=stride,
        pattern=None if pattern is None else parse_pattern(pattern),
        bits=bits,
        black=None if black is None else parse_numbers(black, "the black level", "200"),
        white=white,
    )


def parse_numbers(text: str, option: str, form: str, count: int | None = None) -> tuple[float, ...]:
    """Numbers separated by commas.

    >>> parse_numbers("2, 1,1.5", "--gains", "R,G,B", count=3)
    (2.0, 1.0, 1.5)

    Raises:
        SettingError: other words, or another number of them.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    wrong = count is not None and len(values) != count
    if not values or wrong or not all(math.isfinite(value) for value in values):
        raise SettingError(f"expected {option} like {form}, found {text!r}: correct it")
    return values
