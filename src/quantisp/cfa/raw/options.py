"""What can be said of a raw file beside it: flags of a command, or a sidecar in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt16

from quantisp.cfa.patterns import CFAPattern
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, SettingError

__all__ = ["GEOMETRY", "PACKINGS", "Packing", "RawOptions", "assemble"]

Packing = Literal["raw10", "raw12", "plain16", "plain16-msb", "plain8"]
PACKINGS: tuple[Packing, ...] = get_args(Packing)
# What only a file without a header needs.
GEOMETRY = frozenset({"width", "height", "packing", "stride"})
LARGEST_SIDE_PX = 1 << 20
LARGEST_CODE = 65535
ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class RawOptions:
    """What a file does not say itself; None leaves it to the file, or to its format's default.

    Args:
        width, height: in px, of a file without a header.
        packing: how a file without a header stores its samples.
        stride: bytes from a row to the next, of a file without a header; None is without padding.
        bits: of the sensor's converter.
        pattern: the CFA at the first pixel.
        black: in codes; one level, or one for each position of the pattern's tile, row by row.
        white: the saturation level, in codes.
        as_shot_neutral, color_matrix, orientation, noise_profile, metadata: as in a
            :class:`RawImage`; a sidecar gives them.

    Raises:
        SettingError: a value out of range.
    """

    width: int | None = None
    height: int | None = None
    packing: Packing | None = None
    stride: int | None = None
    bits: int | None = None
    pattern: CFAPattern | None = None
    black: tuple[float, ...] | None = None
    white: float | None = None
    as_shot_neutral: tuple[float, float, float] | None = None
    color_matrix: tuple[tuple[float, float, float], ...] | None = None
    orientation: int | None = None
    noise_profile: tuple[tuple[float, float], ...] | None = None
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name, largest in (
            ("width", LARGEST_SIDE_PX),
            ("height", LARGEST_SIDE_PX),
            ("stride", 4 * LARGEST_SIDE_PX),
            ("bits", 16),
        ):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= largest:
                raise SettingError(
                    f"expected {name} from 1 to {largest}, found {value}: correct it"
                )
        if self.packing is not None and self.packing not in PACKINGS:
            raise SettingError(
                f"expected a packing among {', '.join(PACKINGS)}, found {self.packing!r}: "
                "correct it"
            )
        for level in (*(self.black or ()), *(() if self.white is None else (self.white,))):
            if not 0 <= level <= LARGEST_CODE:
                raise SettingError(
                    f"expected levels from 0 to {LARGEST_CODE} codes, found {level}: correct them"
                )

    def given(self) -> frozenset[str]:
        """The names of what is said."""
        return frozenset(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def over(self, other: RawOptions) -> RawOptions:
        """These, and what they leave open from ``other``."""
        return RawOptions(
            **{
                f.name: getattr(self if f.name in self.given() else other, f.name)
                for f in fields(self)
            }
        )

    def only(self, allowed: frozenset[str], what: str) -> None:
        """Refuse what ``what`` says itself.

        Raises:
            SettingError: something other than ``allowed`` is given.
        """
        surplus = sorted(self.given() - allowed)
        if surplus:
            raise SettingError(
                f"expected {what} to be described by itself, found {', '.join(surplus)} given for "
                "it: leave that out"
            )


def assemble(codes: UInt16[np.ndarray, "h w"], options: RawOptions, path: Path) -> RawImage:
    """A capture of the codes of a file that says little itself.

    Black is 0, bits are what the white level needs (16 where nothing is said), and white is the
    largest code of so many bits, where ``options`` leaves them open.

    Raises:
        ImageError: no pattern, levels that do not fit it, or codes beyond the bits, as reading
            with the wrong alignment or byte order gives.
    """
    pattern = options.pattern
    if pattern is None:
        raise ImageError(
            f"expected the CFA of {path}, found nothing that says it: give --pattern, or write "
            f"{path.name}.json beside it"
        )
    bits = options.bits or (16 if options.white is None else int(options.white).bit_length())
    white = float((1 << bits) - 1) if options.white is None else options.white
    check_codes(codes, bits, path)
    return RawImage(
        codes=codes,
        pattern=pattern,
        black=black_levels(options.black or (0.0,), pattern, path),
        white=white,
        bits=bits,
        as_shot_neutral=options.as_shot_neutral,
        color_matrix=matrix_of(options),
        orientation=options.orientation or 1,
        noise_profile=options.noise_profile,
        metadata=options.metadata or {},
    )


def matrix_of(options: RawOptions) -> Float[np.ndarray, "n 3"] | None:
    """The colour matrix as an array."""
    return None if options.color_matrix is None else np.array(options.color_matrix, dtype=float)


def black_levels(levels: tuple[float, ...], pattern: CFAPattern, path: Path) -> tuple[float, ...]:
    """One level for each position of the tile.

    Raises:
        ImageError: neither one nor as many as there are positions.
    """
    positions = pattern.period[0] * pattern.period[1]
    if len(levels) not in (1, positions):
        raise ImageError(
            f"expected 1 or {positions} black levels for {pattern}, found {len(levels)} for "
            f"{path}: give one for each position of the tile, row by row"
        )
    return levels if len(levels) == positions else levels * positions


def check_codes(codes: UInt16[np.ndarray, "h w"], bits: int, path: Path) -> None:
    """Refuse codes that so many bits cannot hold.

    Raises:
        ImageError: there is one.
    """
    if bits >= 16:
        return
    # Some rows at a time, for a mapped file should not be held in memory.
    for top in range(0, codes.shape[0], ROWS_AT_ONCE):
        largest = int(codes[top : top + ROWS_AT_ONCE].max())
        if largest >= 1 << bits:
            raise ImageError(
                f"expected codes of {bits} bits (at most {(1 << bits) - 1}) in {path}, found "
                f"{largest}: correct the bits, the packing (plain16-msb where the bits are at the "
                "high end), or the file's byte order (little-endian)"
            )
