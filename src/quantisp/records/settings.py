"""One way to quantize a whole network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Granularity", "RowGranularity", "Setting"]

Granularity = Literal["tensor", "channel"]
RowGranularity = Literal["tensor", "channel", "block", "none"]


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """One way to quantize a whole network.

    Args:
        method: of rounding, such as ``rtn``; of most weights, where a plan names several.
        granularity: of the scales: ``tensor`` or ``channel``, of most weights where a plan names
            both; ``block`` and ``none`` for weight formats.
        weight_bits: 2 to 16; None where a plan or a weight format says it.
        activation_bits: None is float.
        plan: the name of a plan, or the budget that one is chosen for, such as ``mean-bits=4``.
        weight_format: such as ``fp8-e4m3``.
    """

    method: str
    granularity: RowGranularity
    weight_bits: int | None
    activation_bits: int | None = None
    plan: str | None = None
    weight_format: str | None = None

    @property
    def is_uniform(self) -> bool:
        """Whether every layer has the same integers."""
        return self.plan is None and self.weight_format is None

    @property
    def label(self) -> str:
        """What is special about it, in short: ``5 bits``, ``mean-bits=4`` or ``float16``."""
        return self.plan or self.weight_format or f"{self.weight_bits} bits"

    @property
    def width(self) -> int:
        """The weight bits of a uniform setting.

        Raises:
            ValueError: it is not uniform.
        """
        if self.weight_bits is None:
            raise ValueError(f"expected a uniform setting, found {self.label}")
        return self.weight_bits

    @property
    def series(self) -> tuple[str, RowGranularity, int | None]:
        """What stays the same along a curve over ``weight_bits``."""
        return self.method, self.granularity, self.activation_bits
