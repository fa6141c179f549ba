"""The public functions, composed from the rooms."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from quantisp import __version__
from quantisp.cfa import CFAPattern
from quantisp.data import PatchCache, find_images, read_picture, read_training_tiles
from quantisp.errors import OutputError
from quantisp.models import (
    LoadedModel,
    Provenance,
    build_preset,
    load_model_file,
    load_own_model,
    write_model_file,
)
from quantisp.training import CurvePoint, TrainProgress, TrainSettings, train

__all__ = ["load_model", "train_model"]

TRAINED_NAME = "model.safetensors"


def load_model(name_or_path: str | Path, weights: str | Path | None = None) -> nn.Module:
    """A network whose ``forward`` maps a mosaic (n, 1, h, w) in [0, 1] to RGB (n, 3, h, w).

    Args:
        name_or_path: a packaged name, a ``.safetensors`` file that quantisp wrote, or, for a
            network of your own, ``package.module:factory``.
        weights: for a network of your own, its state dict as a safetensors file.
    Returns:
        The network in evaluation mode, with its CFA as ``.pattern``. Its output is not clipped.
    Raises:
        ModelError: no such model, or it cannot be used.
    """
    return find_model(name_or_path, weights).model


def find_model(name_or_path: str | Path, weights: str | Path | None = None) -> LoadedModel:
    """As :func:`load_model`, with the name, the CFA and the provenance beside the network."""
    if weights is not None or ":" in str(name_or_path):
        return load_own_model(str(name_or_path), None if weights is None else Path(weights))
    return load_model_file(name_or_path)


def train_model(
    *,
    preset: str,
    pattern: CFAPattern,
    data: Sequence[str | Path],
    validation: Sequence[str | Path],
    out: Path,
    settings: TrainSettings,
    command: str,
    init: str | Path | None = None,
    resume: bool = False,
    on_read: Callable[[int, int], None] | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Train a preset, and keep the best weights by validation in ``out/model.safetensors``.

    Args:
        preset: which network.
        pattern: the CFA to train it for.
        data: files, folders or globs of pictures to train on.
        validation: the same of pictures to validate on; they must be others.
        out: the folder of the run, made if need be.
        settings: how to train.
        command: recorded with the weights.
        init: a model to begin from (its preset and CFA must be the same), or None.
        resume: go on from the checkpoint in ``out``.
        on_read: called with the number of pictures read, and of all.
        on_progress: called about once a second.
    Raises:
        InputError: unusable pictures, settings, models or places.
        RunError: the loss is not finite any more.
    """
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise OutputError(
            f"expected an empty folder, {out} holds a training run: pass --resume to go on "
            "with it, or choose another --out"
        )
    torch.manual_seed(settings.seed)
    model = build_preset(preset, pattern)
    if init is not None:
        model.load_state_dict(find_model(init).model.state_dict())
    files = find_images(data)
    pictures = [read_picture(file.path).tensor() for file in find_images(validation)]
    tiles = read_training_tiles(
        files,
        at_least_px=max(settings.patch_px, settings.last_patch_px),
        on_read=None if on_read is None else lambda count: on_read(count, len(files)),
    )
    provenance = Provenance(
        domain="srgb",
        command=command,
        data=f"{' '.join(Path(source).name for source in data)}: {len(tiles)} pictures",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=_revision(),
        validation_psnr_db="",
    )
    out.mkdir(parents=True, exist_ok=True)

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
        on_progress=on_progress,
        on_better=keep,
    )


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
