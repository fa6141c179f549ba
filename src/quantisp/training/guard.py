"""Tells a run that has gone astray from one whose loss merely varies from batch to batch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CHECK_EVERY", "LossGuard"]

# Losses are looked at so many steps at a time: their median is steady, and an accelerator need not
# wait for the processor in between.
CHECK_EVERY = 10
# Medians of sound runs stay within a factor of two or three of their mean.
JUMP = 6.0
MEMORY = 0.9
# Fewer losses tell nothing of what is usual, only whether they are finite.
ENOUGH = 5


@dataclass
class LossGuard:
    """Remembers what the loss usually is, in each phase of the run.

    Args:
        usual: the running mean of the medians, or None before the first.
        phase: whose loss that is.
    """

    usual: float | None = None
    phase: str = ""

    def accepts(self, losses: Sequence[float], phase: str) -> bool:
        """Whether a few successive losses are finite and near the usual; remembers them if so."""
        if phase != self.phase:
            self.usual, self.phase = None, phase
        if not all(math.isfinite(loss) for loss in losses):
            return False
        if len(losses) < ENOUGH:
            return True
        median = statistics.median(losses)
        if self.usual is None:
            self.usual = median
        elif median > JUMP * self.usual:
            return False
        self.usual = MEMORY * self.usual + (1.0 - MEMORY) * median
        return True

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        return {"usual": self.usual, "phase": self.phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember what another one did."""
        self.usual, self.phase = state["usual"], state["phase"]
