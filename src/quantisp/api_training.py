"""Training, composed from the rooms: the part of the public functions that makes models."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from quantisp import __version__
from quantisp.api import find_model
from quantisp.cfa import CFAPattern
from quantisp.data import ImageFile, PatchCache, find_images, read_picture, read_training_tiles
from quantisp.errors import ImageError, ModelError
from quantisp.files import make_folder
from quantisp.inference import find_device
from quantisp.models import LoadedModel, Provenance, build_preset, write_model_file
from quantisp.training import CurvePoint, TrainProgress, TrainSettings, check_run_folder, train

__all__ = ["train_model"]

TRAINED_NAME = "model.safetensors"
# Without validation pictures, every 20th picture is kept from training, and at least one.
HELD_OUT = 20


def train_model(
    *,
    preset: str,
    pattern: CFAPattern,
    data: Sequence[str | Path],
    validation: Sequence[str | Path] = (),
    out: Path,
    settings: TrainSettings,
    command: str,
    init: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    on_read: Callable[[int, int], None] | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Train a preset, and keep the best weights by validation in ``out/model.safetensors``.

    Args:
        preset: which network.
        pattern: the CFA to train it for.
        data: files, folders or globs of pictures to train on.
        validation: the same of pictures to validate on, others than those; empty holds out
            every 20th picture of ``data``.
        out: the folder of the run, made if need be.
        settings: how to train.
        command: recorded with the weights.
        init: a model to begin from (its preset and CFA must be the same), or None.
        resume: go on from the checkpoint in ``out``.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        on_read: called with the number of pictures read, and of all.
        on_progress: called about once a second.

    Raises:
        InputError: unusable pictures, settings, models or places.
        RunError: the loss is not finite any more.
    """
    check_run_folder(out, resume=resume)
    torch.manual_seed(settings.seed)
    model = build_preset(preset, pattern)
    if init is not None:
        _begin_with(find_model(init), model, pattern)
    place = find_device(device)
    files, held_out = _separated(find_images(data), find_images(validation) if validation else ())
    least = max(settings.patch_px, settings.last_patch_px)
    pictures = [_validation_picture(file, pattern) for file in held_out]
    tiles = read_training_tiles(
        files,
        at_least_px=least,
        on_read=None if on_read is None else lambda count: on_read(count, len(files)),
    )
    provenance = Provenance(
        domain="srgb",
        command=_printable(command),
        data=_printable(f"{' '.join(Path(s).name for s in data)}: {len(tiles)} pictures"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=_revision(),
        validation_psnr_db="",
    )
    make_folder(out)

    def keep(averaged: nn.Module, point: CurvePoint) -> None:
        validated = f"{point.psnr_db:.3f} (mean of {len(pictures)} pictures, step {point.step})"
        write_model_file(
            out / TRAINED_NAME,
            averaged,
            preset=preset,
            pattern=pattern,
            provenance=Provenance(**{**vars(provenance), "validation_psnr_db": validated}),
        )

    return train(
        model,
        PatchCache(tiles),
        pictures,
        settings,
        pattern=pattern,
        folder=out,
        resume=resume,
        device=place,
        on_progress=on_progress,
        on_better=keep,
    )


def _separated(
    files: Sequence[ImageFile], validation: Sequence[ImageFile]
) -> tuple[Sequence[ImageFile], Sequence[ImageFile]]:
    """The pictures to train on, and others to validate on."""
    if not validation:
        if len(files) < 2:
            raise ImageError(
                f"expected at least two pictures, one of them to validate on, found {len(files)}: "
                "add some to --data, or pass --validation"
            )
        held_out = list(files[::HELD_OUT])
        return [file for file in files if file not in held_out], held_out
    trained = {file.path.resolve() for file in files}
    both = [file.path for file in validation if file.path.resolve() in trained]
    if both:
        raise ImageError(
            f"expected other pictures in --validation than in --data, {both[0]} is in both: "
            "take it out of one"
        )
    return files, validation


def _validation_picture(file: ImageFile, pattern: CFAPattern) -> Tensor:
    picture = read_picture(file.path).tensor()
    height, width = picture.shape[2:]
    if height < pattern.period[0] or width < pattern.period[1]:
        raise ImageError(
            f"expected pictures of at least one CFA period to validate on, {file.path} is "
            f"{height}x{width} px: leave it out"
        )
    return picture


def _printable(text: str) -> str:
    # File names may be any bytes; metadata is UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


def _begin_with(found: LoadedModel, model: nn.Module, pattern: CFAPattern) -> None:
    ours, given = ({n: v.shape for n, v in m.state_dict().items()} for m in (model, found.model))
    if found.pattern != pattern or ours != given:
        raise ModelError(
            f"expected a model of the same preset for {pattern} in --init, {found.name} is for "
            f"{found.pattern} or of another preset: choose another, or change --preset or --cfa"
        )
    model.load_state_dict(found.model.state_dict())


def _revision() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"quantisp {__version__}"
    return described.stdout.strip()
