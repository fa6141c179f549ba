"""What a run was made of and how it went: enough to make it again."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from quantisp.data import ImageFile, Picture, TileSet, read_training_picture
from quantisp.files import write_atomically
from quantisp.training.progress import CurvePoint
from quantisp.training.settings import TrainSettings

__all__ = ["RECORD_NAME", "write_record"]

RECORD_NAME = "training.json"


def write_record(
    path: Path,
    *,
    command: str,
    revision: str,
    settings: TrainSettings,
    tiles: TileSet,
    validation: Sequence[ImageFile],
    curve: Sequence[CurvePoint],
    quantization: Mapping[str, object] | None = None,
) -> None:
    """Write the record of a run as JSON.

    Args:
        path: of the file, replaced in one step.
        command: that was given.
        revision: of the source.
        settings: of the run.
        tiles: the pictures that were trained on; each is listed with the digest of its pixels.
        validation: the pictures that the best weights were chosen by, listed likewise.
        curve: every validation.
        quantization: how the network was quantized while it was trained; None is not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    record = {
        "schema": 1,
        "command": command,
        "revision": revision,
        "settings": asdict(settings),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "validation": [{"name": file.name, "sha256": _sha256(file)} for file in validation],
        **({} if quantization is None else {"quantization": dict(quantization)}),
        "curve": [{**asdict(point), "psnr_db": round(point.psnr_db, 4)} for point in curve],
        "pictures": [{"name": tile.name, "sha256": tile.sha256} for tile in tiles.entries],
    }
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def _sha256(file: ImageFile) -> str:
    return Picture(samples=read_training_picture(file), dropped_alpha=False).sha256()
