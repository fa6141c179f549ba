"""What a restoration network takes and gives: channels, sizes and the phase that it needs."""

from __future__ import annotations

from dataclasses import dataclass

from quantisp.cfa import CFAPattern

__all__ = ["Interface"]


@dataclass(frozen=True, kw_only=True)
class Interface:
    """The shape of a network: (n, channels, h, w) in, RGB (n, 3, factor h, factor w) out.

    Args:
        channels: of the input: 1 for a mosaic, 3 for RGB.
        factor: how many times higher and wider the output is.
        period: rows and columns after which the input's meaning repeats: of its CFA, else (1, 1).
    """

    channels: int = 1
    factor: int = 1
    period: tuple[int, int] = (1, 1)

    @classmethod
    def of_mosaic(cls, pattern: CFAPattern) -> Interface:
        """Of a network that restores mosaics of this CFA."""
        return cls(channels=1, factor=1, period=pattern.period)

    def output_shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the output for one input of ``height`` times ``width`` px."""
        return 1, 3, self.factor * height, self.factor * width
