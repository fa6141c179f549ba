"""Raw files as what a study looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quantisp.cfa import CFAPattern, alignment
from quantisp.cfa.balance import find_neutral
from quantisp.cfa.color import balanced_pattern
from quantisp.cfa.raw import RAW_SUFFIXES, read_raw
from quantisp.cfa.raw.sidecar import sidecar_path
from quantisp.data import SUFFIXES, ImageFile, find_images
from quantisp.errors import ImageError, InputError, SettingError
from quantisp.evaluation import Capture, StudyPicture, capture_samples, samples_sha256
from quantisp.models import LoadedModel, check_pattern

__all__ = ["are_captures", "find_pictures_or_captures", "survey_captures"]

EITHER = tuple(sorted({*SUFFIXES, *RAW_SUFFIXES}))
# Of sides, as for pictures.
LEAST_PX = 32


def find_pictures_or_captures(sources: Sequence[str | Path]) -> tuple[ImageFile, ...]:
    """As :func:`quantisp.data.find_images`; raw files of folders that hold no pictures, too.

    Cameras leave both in one folder; its pictures are meant then.

    Raises:
        ImageError: a source does not exist or holds neither.
    """
    try:
        return find_images(sources)
    except ImageError:
        return find_images(sources, suffixes=EITHER)


def are_captures(files: Sequence[ImageFile]) -> bool:
    """Whether all files are raw; PNG and TIFF are where a sidecar describes them as such.

    Raises:
        SettingError: some are, some are not.
    """
    raw = [_is_raw(file.path) for file in files]
    if any(raw) and not all(raw):
        picture = files[raw.index(False)].path
        capture = files[raw.index(True)].path
        raise SettingError(
            f"expected pictures or raw files in --images, found both ({picture}, {capture}): "
            "study them apart"
        )
    return any(raw)


def survey_captures(
    files: Sequence[ImageFile],
    found: LoadedModel,
    pattern: CFAPattern,
    on_read: Callable[[int, int], None] | None = None,
) -> tuple[StudyPicture, ...]:
    """Read every capture, one at a time.

    Args:
        files: the captures.
        found: the network.
        pattern: its CFA; a capture may begin in another phase of it.
        on_read: called with the number of captures read, and of all.

    Raises:
        ModelError: the network is for another CFA.
        ImageError: a file cannot be read, or is too small.
        SettingError: a file without a header has no sidecar that describes it.
    """
    pictures: list[StudyPicture] = []
    for file in files:
        try:
            capture = _capture(file.path, found, pattern)
            samples = capture_samples(capture)
        except InputError as error:
            prefix = "" if str(file.path) in str(error) else f"{file.path}: "
            raise type(error)(f"{prefix}{error}") from error
        height, width = samples.shape[2:]
        if min(height, width) < LEAST_PX:
            raise ImageError(
                f"expected captures of at least {LEAST_PX}x{LEAST_PX} px, {file.path} has "
                f"{height}x{width} from the CFA's first phase on: leave it out"
            )
        pictures.append(
            StudyPicture(
                name=file.name,
                path=file.path,
                sha256=samples_sha256(samples),
                height=height,
                width=width,
                capture=capture,
            )
        )
        if on_read is not None:
            on_read(len(pictures), len(files))
    return tuple(pictures)


def _is_raw(path: Path) -> bool:
    return sidecar_path(path).is_file() or path.suffix.lower() in RAW_SUFFIXES - set(SUFFIXES)


def _capture(path: Path, found: LoadedModel, made_for: CFAPattern) -> Capture:
    raw = read_raw(path)
    pattern = balanced_pattern(raw.pattern)
    shift = alignment(pattern, made_for.tile)
    if shift is None:
        check_pattern(found, pattern)
    # What would have to go before it goes from it, so that nothing is invented.
    top, left = ((px - rows) % px for rows, px in zip(shift or (0, 0), pattern.period, strict=True))
    return Capture(
        path=path,
        neutral=find_neutral(raw, None)[0],
        top=top,
        left=left,
        domain=found.capture_domain,
    )
