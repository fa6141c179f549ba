"""What a writer is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.integer import IntegerNetwork

__all__ = ["ExportReport", "ExportRequest", "Sample", "Writer"]


def _nothing(stage: str, done: int, total: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """An input to verify an export with.

    Args:
        x: real numbers as the graph takes them, of a size that it runs at.
        source: the picture's name.
        x_px, y_px: where the crop begins.
    """

    x: Float[Tensor, "1 c h w"]
    source: str
    x_px: int = 0
    y_px: int = 0

    def described(self) -> dict[str, Any]:
        """For documents."""
        height, width = self.x.shape[2:]
        place = {"x": self.x_px, "y": self.y_px, "width": width, "height": height}
        return {"source": self.source, **place}


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportRequest:
    """What to write.

    Args:
        network: in integers.
        sample: what the export is run on, to compare.
        name: of the network; an identifier of C and Verilog.
        folder: where to write; empty.
        size: the only height and width that it is for, of a format of ``SIZED``; None is any.
        unverified: write even where nothing on this machine can run what is written.
        on_progress: called with a stage, what is done of it, and all of it.
    """

    network: IntegerNetwork
    sample: Sample
    name: str
    folder: Path = Path()
    size: tuple[int, int] | None = None
    unverified: bool = False
    on_progress: Callable[[str, int, int], None] = field(default=_nothing)

    def into(self, folder: Path) -> ExportRequest:
        """The same, to be written there."""
        return replace(self, folder=folder)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written.

    Args:
        verified: what was run and compared, in words; begins with ``not verified`` if nothing was.
        facts: for people and JSON, in the order to show them.
    """

    verified: str
    facts: Mapping[str, Any]


Writer = Callable[[ExportRequest], ExportReport]
"""One format: writes into ``request.folder``, runs what it wrote, and compares.

It raises ``ModelError`` for a network that the format cannot hold, and ``RunError`` where what was
written gives something else; the folder is then thrown away.
"""
