"""Fitting linear filters to pictures, composed from the rooms."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from quantisp.api_files import printable, source_revision
from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import ImageFile, find_images, read_picture
from quantisp.errors import ImageError, OutputError
from quantisp.files import make_folder, write_atomically
from quantisp.inference import prepare, restore
from quantisp.metrics import mean_squared_error, rounded_to_8_bits
from quantisp.models import LinearFit, Provenance, write_model_file

__all__ = ["FittedFilters", "fit_linear"]

SUFFIX, RECORD_SUFFIX = ".safetensors", ".training.json"
PRESET = "linear"


@dataclass(frozen=True, kw_only=True)
class FittedFilters:
    """What was written.

    Args:
        path: of the model file; the record of the pictures lies beside it.
        pictures: that the filters were fitted to.
        validation_psnr_db: mean over the validation pictures; None without any.
    """

    path: Path
    pictures: int
    validation_psnr_db: float | None


def fit_linear(
    *,
    pattern: CFAPattern,
    data: Sequence[str | Path],
    validation: Sequence[str | Path] = (),
    out: Path,
    command: str,
    on_picture: Callable[[int, int], None] | None = None,
) -> FittedFilters:
    """Fit linear filters of least squared error to pictures, and write them as a model file.

    Args:
        pattern: the CFA.
        data: files, folders or globs of pictures, each of which counts by its pixels.
        validation: the same of other pictures, to measure on.
        out: a ``.safetensors`` file, made or replaced.
        command: recorded in the file.
        on_picture: called with the number of pictures read, and of all.

    Raises:
        InputError: an unusable picture or place; nothing is written.
        RunError: too few pictures.
    """
    if out.suffix != SUFFIX:
        raise OutputError(f"expected a {SUFFIX} file as --out, found {out}: end it so")
    files = find_images(data)
    held_out = find_images(validation) if validation else ()
    fit = LinearFit(pattern)
    digests: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        picture = read_picture(file.path)
        height, width = picture.samples.shape[:2]
        if height < pattern.period[0] or width < pattern.period[1]:
            raise ImageError(
                f"expected pictures of at least {pattern.period[0]}x{pattern.period[1]} px, "
                f"{file.path} is {height}x{width}: leave it out of --data"
            )
        digests[file.name] = picture.sha256()
        fit.add(picture.tensor())
        if on_picture is not None:
            on_picture(number, len(files))
    filters = fit.solve()
    measured = _mean_psnr_db(filters, pattern, held_out) if held_out else None
    provenance = Provenance(
        domain="srgb",
        command=printable(command),
        data=printable(f"{' '.join(Path(s).name for s in data)}: {len(files)} pictures"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=source_revision(),
        validation_psnr_db="not measured" if measured is None else f"{measured:.3f}",
    )
    make_folder(out.parent)
    record = {
        "schema": 1,
        "command": provenance.command,
        "revision": provenance.revision,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "validation_psnr_db": measured,
        "pictures": [{"name": name, "sha256": digest} for name, digest in digests.items()],
    }
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(out.with_name(out.stem + RECORD_SUFFIX), text.encode())
    write_model_file(out, filters, preset=PRESET, pattern=pattern, provenance=provenance)
    return FittedFilters(path=out, pictures=len(files), validation_psnr_db=measured)


def _mean_psnr_db(model: nn.Module, pattern: CFAPattern, files: Sequence[ImageFile]) -> float:
    network = prepare(model, torch.device("cpu"))
    measured: list[float] = []
    for file in files:
        truth = read_picture(file.path).tensor()
        restored = rounded_to_8_bits(restore(network, mosaic(truth, pattern)))
        measured.append(-10.0 * math.log10(max(float(mean_squared_error(restored, truth)), 1e-10)))
    return sum(measured) / len(measured)
