"""The pictures of a study, read once before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantisp.cfa import CFAPattern
from quantisp.data import ImageFile, read_picture
from quantisp.errors import ImageError
from quantisp.evaluation.measure import LEAST_PX

__all__ = ["StudyPicture", "survey"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudyPicture:
    """A picture that can be studied: what it is called, where it is, and what it holds."""

    name: str
    path: Path
    sha256: str
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width


def survey(
    files: Sequence[ImageFile],
    pattern: CFAPattern,
    on_read: Callable[[int, int], None] | None = None,
) -> tuple[StudyPicture, ...]:
    """Read every picture to its end, one at a time.

    Args:
        files: the pictures.
        pattern: the CFA that they will be sampled through.
        on_read: called with the number of pictures read, and of all.

    Raises:
        ImageError: one of them is damaged, not RGB, or too small.
    """
    least_y, least_x = (max(LEAST_PX, period) for period in pattern.period)
    pictures: list[StudyPicture] = []
    for file in files:
        picture = read_picture(file.path)
        height, width = picture.samples.shape[:2]
        if height < least_y or width < least_x:
            period = "x".join(str(p) for p in pattern.period)
            raise ImageError(
                f"expected pictures of at least {least_y}x{least_x} px ({pattern} repeats every "
                f"{period} px, and 10 px at each border are left out of one figure), {file.path} "
                f"is {height}x{width}: leave it out"
            )
        if picture.dropped_alpha:
            log.warning("%s: its transparency is left out", file.path)
        pictures.append(
            StudyPicture(
                name=file.name, path=file.path, sha256=picture.sha256(), height=height, width=width
            )
        )
        if on_read is not None:
            on_read(len(pictures), len(files))
    return tuple(pictures)
