"""What every command shows: results on standard output, progress on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["ProgressDisplay", "console"]

PIPED_COLUMNS = 120
# A log gets a line this often, a terminal a live bar.
LINE_EVERY_S = 30.0


def console() -> Console:
    """Standard output; as wide as the terminal, or 120 columns in a pipe."""
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_COLUMNS
    return Console(width=wide, highlight=False, markup=False)


class ProgressDisplay:
    """How far each stage of a command is, with the time left, while its context lasts.

    On a terminal it is a live bar that leaves nothing behind; elsewhere a line every 30 seconds.
    """

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, float]] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, stage: str, done: float | int, total: float | int, doing: str = "") -> None:
        """``stage`` is at ``done`` of ``total``; ``doing`` says what is in hand."""
        text = f"{stage}: {doing}" if doing else stage
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(text)
            # A run that was resumed begins in the middle.
            self._began[stage] = (time.monotonic(), done)
        self._bar.update(self._tasks[stage], completed=done, total=total, description=text)
        now = time.monotonic()
        began, first = self._began[stage]
        if self._bar.disable and now - self._last_line > LINE_EVERY_S and done > first:
            left = (now - began) * (total - done) / (done - first)
            percent = 100 * done / total
            print(f"{text}, {percent:.0f}% done, {left:.0f} s left", file=sys.stderr, flush=True)
            self._last_line = now
