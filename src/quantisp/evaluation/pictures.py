"""The pictures of a study, read once before anything is written."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.data import ImageFile, PairFiles, Picture, as_8_bits, read_picture
from quantisp.errors import ImageError
from quantisp.evaluation.captures import Capture, capture_samples
from quantisp.evaluation.degradation import Degradation, as_it_is, paired
from quantisp.evaluation.measure import LEAST_PX
from quantisp.quantization import round_input

__all__ = ["Sample", "StudyPicture", "load_sample", "survey", "survey_pairs"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StudyPicture:
    """A picture that can be studied: what it is called, where it is, and what it holds.

    Args:
        name: in results.
        path: of the truth.
        sha256: of the truth's pixels.
        shown_sha256: of the upper eight bits of all pixels that there are, where they have 16: of
            the truth, and of the input where it is a picture of its own.
        height, width: of what is restored, in px.
        input_path, input_sha256: the same of the input, where it is a picture of its own.
        capture: a raw file, of which there is no truth; ``sha256`` is then of its samples.
    """

    name: str
    path: Path
    sha256: str
    height: int
    width: int
    input_path: Path | None = None
    input_sha256: str | None = None
    capture: Capture | None = None
    shown_sha256: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def content_sha256(self) -> str:
        """The digest of all that the picture gives: the truth, and the input if it has its own."""
        if self.input_sha256 is None:
            return self.sha256
        return hashlib.sha256(f"{self.input_sha256} {self.sha256}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """What a network gets, and what its output should be when it is ``shown``."""

    given: Float[Tensor, "1 c h w"]
    truth: Float[Tensor, "1 3 h2 w2"]
    shown: Callable[[Tensor], Tensor] = as_it_is


def load_sample(
    picture: StudyPicture, degradation: Degradation, input_bits: int | None = None
) -> Sample:
    """Read a picture, and degrade it.

    Args:
        picture: of a survey.
        degradation: what to do to it.
        input_bits: what is given is rounded to so many; None leaves it as it is.

    Raises:
        ImageError: it is not what it was when it was surveyed.
    """
    given, truth = _both(picture, degradation)
    return Sample(
        given=given if input_bits is None else round_input(given, input_bits),
        truth=truth,
        shown=degradation.shown,
    )


def _both(picture: StudyPicture, degradation: Degradation) -> tuple[Tensor, Tensor]:
    """What the network gets, and the truth; zeros for that of a raw file, which nobody knows."""
    if picture.capture is not None:
        unknown = torch.zeros(1).expand(1, 3, picture.height, picture.width)
        return capture_samples(picture.capture, picture.sha256), unknown
    truth = degradation.whole(_unchanged(picture.path, picture.sha256).tensor())
    if picture.input_path is None:
        return degradation.degrade(truth, picture.sha256), truth
    return _unchanged(picture.input_path, picture.input_sha256).tensor(), truth


def _unchanged(path: Path, sha256: str | None) -> Picture:
    read = read_picture(path)
    if read.sha256() != sha256:
        raise ImageError(
            f"expected {path} as it was when the study began, it has changed: start the study again"
        )
    return read


def survey(
    files: Sequence[ImageFile],
    degradation: Degradation,
    on_read: Callable[[int, int], None] | None = None,
) -> tuple[StudyPicture, ...]:
    """Read every picture to its end, one at a time.

    Args:
        files: the pictures.
        degradation: what will be done to them.
        on_read: called with the number of pictures read, and of all.

    Raises:
        ImageError: one of them is damaged, not RGB, or too small.
    """
    factor = degradation.interface.factor
    pictures: list[StudyPicture] = []
    for file in files:
        picture, height, width = _read(file.path)
        height, width = height - height % factor, width - width % factor
        _check_size(file.path, (height, width), degradation)
        pictures.append(
            StudyPicture(
                name=file.name,
                path=file.path,
                sha256=picture.sha256(),
                height=height,
                width=width,
                shown_sha256=(as_8_bits(picture).sha256(),),
            )
        )
        if on_read is not None:
            on_read(len(pictures), len(files))
    return tuple(pictures)


def survey_pairs(
    pairs: Sequence[PairFiles], on_read: Callable[[int, int], None] | None = None
) -> tuple[Degradation, tuple[StudyPicture, ...]]:
    """Read every pair of pictures to its end, one at a time.

    Args:
        pairs: at least one.
        on_read: called with the number of pairs read, and of all.

    Returns:
        What makes targets larger than their inputs, and the pictures.
    Raises:
        ImageError: a picture is damaged, not RGB or too small, or sizes do not fit each other.
    """
    pictures: list[StudyPicture] = []
    factors: dict[int, Path] = {}
    for pair in pairs:
        given, *small = _read(pair.input_path)
        target, height, width = _read(pair.target_path)
        factor = height // small[0]
        if factor < 1 or [height, width] != [factor * px for px in small]:
            raise ImageError(
                f"expected a target that is as large as its input, or a whole number of times "
                f"larger, {pair.input_path} is {small[0]}x{small[1]} and {pair.target_path} "
                f"{height}x{width}: crop them alike"
            )
        _check_size(pair.target_path, (height, width), paired(factor))
        factors.setdefault(factor, pair.input_path)
        if len(factors) > 1:
            raise ImageError(
                "expected targets that are all the same number of times larger, "
                + " and ".join(f"that of {path} is {f} times" for f, path in factors.items())
                + ": study them apart"
            )
        pictures.append(
            StudyPicture(
                name=pair.name,
                path=pair.target_path,
                sha256=target.sha256(),
                height=height,
                width=width,
                input_path=pair.input_path,
                input_sha256=given.sha256(),
                shown_sha256=(as_8_bits(target).sha256(), as_8_bits(given).sha256()),
            )
        )
        if on_read is not None:
            on_read(len(pictures), len(pairs))
    return paired(*factors), tuple(pictures)


def _read(path: Path) -> tuple[Picture, int, int]:
    picture = read_picture(path)
    if picture.dropped_alpha:
        log.warning("%s: its transparency is left out", path)
    height, width = picture.samples.shape[:2]
    return picture, height, width


def _check_size(path: Path, size: tuple[int, int], degradation: Degradation) -> None:
    least_y, least_x = (max(LEAST_PX, px) for px in degradation.interface.period)
    if size[0] >= least_y and size[1] >= least_x:
        return
    reason = "10 px at each border are left out of one figure"
    if degradation.pattern is not None:
        period = "x".join(str(px) for px in degradation.pattern.period)
        reason = f"{degradation.pattern} repeats every {period} px, and {reason}"
    raise ImageError(
        f"expected pictures of at least {least_y}x{least_x} px ({reason}), {path} "
        f"is {size[0]}x{size[1]}: leave it out"
    )
