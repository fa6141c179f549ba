"""Raw files to pictures, or to Bayer raw files: folders, models, and what is done already."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from quantisp.api_demosaic.develop import develop, remosaic
from quantisp.api_demosaic.journal import Journal
from quantisp.api_demosaic.networks import Networks
from quantisp.api_demosaic.settings import DemosaicedFile, DemosaicSettings
from quantisp.cfa import CFAPattern, alignment
from quantisp.cfa.balance import find_neutral
from quantisp.cfa.color import balanced_pattern
from quantisp.cfa.raw import RAW_SUFFIXES, RawOptions, read_raw, write_dng
from quantisp.cfa.raw_image import RawImage
from quantisp.data import find_images
from quantisp.data.picture_files import bits_of, upright, write_picture
from quantisp.errors import ImageError, InputError, OutputError
from quantisp.files import make_folder
from quantisp.inference import find_device

__all__ = ["demosaic_files"]

SUFFIXES: Mapping[str, str] = {"png": ".png", "tiff": ".tif", "jpeg": ".jpg"}
# Equal pictures, so that a mean stays finite.
MOST_DB = 100.0
ROWS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class _Job:
    source: Path
    path: Path
    key: str
    pattern: CFAPattern
    neutral: tuple[float, float, float]
    white_balance: str
    pixels: int


def demosaic_files(
    sources: Sequence[str | Path],
    out: Path,
    *,
    model: str | Path | nn.Module = "auto",
    weights: str | Path | None = None,
    options: RawOptions | None = None,
    settings: DemosaicSettings | None = None,
    device: str = "auto",
    on_read: Callable[[int, int], None] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> tuple[DemosaicedFile, ...]:
    """Make a picture, or a Bayer DNG file, of each raw file.

    All files are read before anything is written. A run that was killed goes on where it was: what
    was made of the same samples by the same model and settings is kept.

    Args:
        sources: raw files, folders or globs.
        out: the folder to write into, made if need be.
        model, weights: as for :func:`quantisp.load_model`; ``auto`` is the packaged network for a
            capture's CFA, and of several one that was trained on captures' light.
        options: what the raw files do not say.
        settings: what becomes of them; None is a 16-bit PNG in sRGB.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        on_read: called with the number of files read, and of all.
        on_progress: called with the number of pixels restored, of all, and the file in hand.

    Raises:
        InputError: an unusable file, model, setting or place.
    """
    settings = settings or DemosaicSettings()
    place = find_device(device)
    networks = Networks(model, weights, settings, place)
    journal = Journal(out)
    jobs = _survey(sources, out, networks, options, settings, on_read)
    make_folder(out)
    kept = [journal.find(job.key, job.source, job.path) for job in jobs]
    total = sum(job.pixels for job, record in zip(jobs, kept, strict=True) if record is None)
    done = 0
    results: list[DemosaicedFile] = []
    for job, record in zip(jobs, kept, strict=True):
        if record is not None:
            results.append(record)
            continue

        def advance(pixels: int, name: str = job.source.name) -> None:
            nonlocal done
            done += pixels
            if on_progress is not None:
                on_progress(done, total, name)

        journal.begin(job.path)
        made = _make(job, networks, options, settings, advance)
        journal.add(job.key, made)
        results.append(made)
    return tuple(results)


def _survey(
    sources: Sequence[str | Path],
    out: Path,
    networks: Networks,
    options: RawOptions | None,
    settings: DemosaicSettings,
    on_read: Callable[[int, int], None] | None,
) -> list[_Job]:
    files = find_images(sources, suffixes=sorted(RAW_SUFFIXES))
    suffix = "-bayer.dng" if settings.to_bayer else SUFFIXES[settings.picture_format]
    jobs: list[_Job] = []
    for number, file in enumerate(files, start=1):
        raw = read_raw(file.path, options)
        try:
            jobs.append(
                _job(file.path, out / f"{_flat(file.name)}{suffix}", raw, networks, settings)
            )
        except InputError as error:
            # Which of many files it is.
            raise type(error)(f"{file.path}: {error}") from error
        if on_read is not None:
            on_read(number, len(files))
    places = [job.path for job in jobs]
    twice = next((path for path in places if places.count(path) > 1), None)
    if twice is not None:
        raise OutputError(
            f"expected raw files with names of their own, two would be written to {twice}: give "
            "them one by one, with different --out"
        )
    same = next((job.path for job in jobs if job.path.resolve() == job.source.resolve()), None)
    if same is not None:
        raise OutputError(f"expected another folder than the raw file's, found {same}: see --out")
    return jobs


def _job(
    source: Path, path: Path, raw: RawImage, networks: Networks, settings: DemosaicSettings
) -> _Job:
    if settings.to_bayer and alignment(raw.pattern, ("RG", "GB")) is not None:
        raise ImageError("expected a CFA to turn into Bayer, found Bayer: leave out --to bayer")
    neutral, origin = find_neutral(raw, settings.white_balance)
    pattern = balanced_pattern(raw.pattern)
    networks.check(pattern)
    said = {
        "raw": _raw_sha256(raw),
        "model": networks.identity(pattern),
        "neutral": neutral,
        **settings.identity(),
    }
    return _Job(
        source=source,
        path=path,
        key=hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest(),
        pattern=pattern,
        neutral=neutral,
        white_balance=origin,
        pixels=raw.size[0] * raw.size[1],
    )


def _flat(name: str) -> str:
    """A file name in the folder for results, whatever path a name stands for."""
    return re.sub(r"[/\\]+", "-", name).lstrip("-.") or "raw"


def _raw_sha256(raw: RawImage) -> str:
    digest = hashlib.sha256()
    matrix = None if raw.color_matrix is None else np.asarray(raw.color_matrix).tolist()
    said = (raw.size, raw.pattern.tile, raw.pattern.responses, raw.black, raw.white, raw.bits)
    digest.update(repr((said, matrix, raw.orientation)).encode())
    for top in range(0, raw.size[0], ROWS_AT_ONCE):
        digest.update(np.ascontiguousarray(raw.codes[top : top + ROWS_AT_ONCE]).tobytes())
    return digest.hexdigest()


def _make(
    job: _Job,
    networks: Networks,
    options: RawOptions | None,
    settings: DemosaicSettings,
    on_pixels: Callable[[int], None],
) -> DemosaicedFile:
    start = time.monotonic()
    with _said_before():
        raw = read_raw(job.source, options)
    ready, in_float = networks.ready(job.pattern)
    psnr: float | None = None
    if settings.to_bayer:
        made = remosaic(raw, ready, neutral=job.neutral, on_pixels=on_pixels)
        if in_float is not None:
            reference = remosaic(raw, in_float, neutral=job.neutral)
            psnr = _psnr_db(made.codes, reference.codes, raw.white - float(np.mean(raw.black)))
        write_dng(job.path, made)
    else:
        bits = bits_of(settings.picture_format)
        samples = develop(
            raw, ready, neutral=job.neutral, tone=settings.tone, bits=bits, on_pixels=on_pixels
        )
        if in_float is not None:
            reference = develop(raw, in_float, neutral=job.neutral, tone=settings.tone, bits=bits)
            psnr = _psnr_db(samples, reference, float((1 << bits) - 1))
        write_picture(job.path, upright(samples, raw.orientation), settings.picture_format)
    return DemosaicedFile(
        source=job.source,
        path=job.path,
        kept=False,
        model=networks.name(job.pattern),
        pixels=job.pixels,
        seconds=time.monotonic() - start,
        white_balance=job.white_balance,
        neutral=job.neutral,
        psnr_to_float_db=psnr,
    )


def _psnr_db(one: np.ndarray, other: np.ndarray, peak: float) -> float:
    total = 0.0
    for top in range(0, len(one), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        total += float(np.square(one[rows].astype(np.float64) - other[rows]).sum())
    error = total / one.size / peak**2
    return MOST_DB if error == 0.0 else min(-10.0 * math.log10(error), MOST_DB)


@contextmanager
def _said_before() -> Generator[None]:
    """Without the warnings that the first reading of a file gave."""
    reader = logging.getLogger("quantisp.cfa.raw.files")
    before, reader.disabled = reader.disabled, True
    try:
        yield
    finally:
        reader.disabled = before
