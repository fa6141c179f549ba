"""Integer formats as frozen data."""

from __future__ import annotations

from dataclasses import dataclass

from quantisp.errors import SettingError

__all__ = ["MAX_BITS", "MIN_BITS", "IntFormat"]

MIN_BITS = 2
MAX_BITS = 16


@dataclass(frozen=True, kw_only=True)
class IntFormat:
    """Signed integers with zero_point 0, as weights are stored.

    >>> IntFormat(bits=10)
    IntFormat(bits=10, narrow_range=True)
    >>> IntFormat(bits=10).qmin, IntFormat(bits=10, narrow_range=False).qmin
    (-511, -512)

    Args:
        bits: 2 to 16.
        narrow_range: leave out the most negative code, so that the codes are symmetric.

    Raises:
        SettingError: a width that is not there.
    """

    bits: int
    narrow_range: bool = True

    def __post_init__(self) -> None:
        if self.bits not in range(MIN_BITS, MAX_BITS + 1):
            raise SettingError(
                f"weight bits are {MIN_BITS} to {MAX_BITS}, found {self.bits}: "
                "choose a width in that range, or None for float"
            )

    @property
    def qmax(self) -> int:
        """The largest code, 2^(bits-1) - 1; in both ranges the scale divides by it."""
        return (1 << (self.bits - 1)) - 1

    @property
    def qmin(self) -> int:
        """The smallest code: -qmax in the narrow range, -qmax - 1 in the full one."""
        return -self.qmax if self.narrow_range else -self.qmax - 1
