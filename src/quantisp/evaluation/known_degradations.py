"""Degradations by what they are called on the command line."""

from __future__ import annotations

import math

from quantisp.cfa import CFAPattern, parse_pattern
from quantisp.errors import SettingError
from quantisp.evaluation.degradation import Degradation, downscaled, mosaicked, noisy, undegraded
from quantisp.evaluation.raw_degradation import captured

__all__ = ["parse_degradation"]

MOST_NOISE = 255.0
LARGEST_FACTOR = 16
KNOWN = (
    f"mosaic, mosaic:CFA, raw:ISO, raw-srgb:ISO, noise:SIGMA (in 8-bit steps, to {MOST_NOISE:g}), "
    f"downscale:FACTOR (2 to {LARGEST_FACTOR}), none"
)


def parse_degradation(
    text: str, pattern: CFAPattern | None = None, domain: str = "linear"
) -> Degradation:
    """``mosaic``, ``mosaic:bayer``, ``raw:800``, ``noise:25``, ``downscale:2`` or ``none``.

    >>> parse_degradation("noise:25").name
    'noise:25'

    Args:
        text: as above.
        pattern: the network's own CFA, if it names one.
        domain: of what the network gets of ``raw:ISO``.

    Raises:
        SettingError: none of these, or out of range.
        PatternError: no such CFA.
    """
    kind, colon, value = text.partition(":")
    if kind == "mosaic":
        return mosaicked(_cfa(value if colon else None, pattern))
    if kind == "noise" and 0.0 < _number(value) <= MOST_NOISE:
        return noisy(_number(value))
    if kind in ("raw", "raw-srgb") and _number(value) > 0.0:
        named = _cfa(None, pattern)
        return captured(named, _number(value), "srgb" if kind == "raw-srgb" else domain)
    if kind == "downscale" and 2 <= _number(value) <= LARGEST_FACTOR and value.isdecimal():
        return downscaled(int(value))
    if text == "none":
        return undegraded()
    raise SettingError(
        f"expected a degradation among {KNOWN}, found {text!r}: correct --degradation"
    )


def _cfa(text: str | None, pattern: CFAPattern | None) -> CFAPattern:
    named = pattern if text is None else parse_pattern(text)
    if named is None:
        raise SettingError(
            "expected a CFA to sample through, the network names none: pass --degradation "
            "mosaic:bayer or another CFA, or set model.pattern"
        )
    if pattern not in (None, named):
        raise SettingError(
            f"expected the network's own CFA, {pattern}, found {named} in --degradation: "
            "leave it out"
        )
    return named


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
