"""What a training run trains on, and what it is validated on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantisp.cfa import CFAPattern
from quantisp.data import (
    ImageFile,
    Picture,
    TileSet,
    decode_tiles,
    find_dataset,
    find_images,
    open_tiles,
    read_training_picture,
)
from quantisp.errors import ImageError
from quantisp.training import TrainSettings, Workers

__all__ = [
    "Pictures",
    "data_named",
    "decoded_tiles",
    "find_pictures",
    "tiles_on_device",
    "validation_picture",
]

log = logging.getLogger(__name__)

# Without validation pictures, every 20th picture is kept from training, and at least one.
HELD_OUT = 20
# Decoded pictures move to an accelerator if they take at most this share of its free memory.
SHARE_FOR_PICTURES = 0.5


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a run trains on, and what it is validated on."""

    train: Sequence[ImageFile]
    validation: Sequence[ImageFile]


def find_pictures(
    data: Sequence[str | Path], validation: Sequence[str | Path], hdrplus: str
) -> Pictures:
    """The pictures to train on, and others to validate on."""
    sets = [find_dataset(source, hdrplus=hdrplus) for source in data]
    # A picture that two sources name is one picture.
    files = list({f.path.resolve(): f for found in sets for f in found.train}.values())
    held_out = list(find_images(validation)) if validation else []
    held_out = held_out or [file for found in sets for file in found.validation]
    if not held_out:
        if len(files) < 2:
            raise ImageError(
                f"expected at least two pictures, one of them to validate on, found {len(files)}: "
                "add some to --data, or pass --validation"
            )
        held_out = files[::HELD_OUT]
        chosen = set(held_out)
        return Pictures(train=[f for f in files if f not in chosen], validation=held_out)
    trained = {file.path.resolve() for file in files}
    both = [file.path for file in held_out if file.path.resolve() in trained]
    if both:
        raise ImageError(
            f"expected other pictures in --validation than in --data, {both[0]} is in both: "
            "take it out of one"
        )
    return Pictures(train=files, validation=held_out)


def validation_picture(file: ImageFile, pattern: CFAPattern) -> Tensor:
    """A picture to validate on.

    Raises:
        ImageError: it is smaller than a period of the CFA.
    """
    samples = read_training_picture(file)
    picture = Picture(samples=samples, dropped_alpha=False).tensor()
    height, width = picture.shape[2:]
    if height < pattern.period[0] or width < pattern.period[1]:
        raise ImageError(
            f"expected pictures of at least one CFA period to validate on, {file.path} is "
            f"{height}x{width} px: leave it out"
        )
    return picture


def decoded_tiles(
    files: Sequence[ImageFile],
    folder: Path,
    settings: TrainSettings,
    workers: Workers,
    on_read: Callable[[int, int], None] | None,
) -> TileSet:
    """The decoded pictures: one process decodes, all of a machine map the same file."""
    made = not folder.parent.exists()
    if workers.rank == 0:
        try:
            decode_tiles(
                files,
                folder,
                at_least_px=max(settings.patch_px, settings.last_patch_px),
                on_read=None if on_read is None else lambda count: on_read(count, len(files)),
            )
        except ImageError:
            if made:
                folder.parent.rmdir()
            raise
    workers.wait()
    return open_tiles(folder)


def tiles_on_device(tiles: TileSet, device: torch.device) -> TileSet:
    """The pictures on an accelerator, if it has room for them."""
    if device.type != "cuda":
        return tiles
    free, _ = torch.cuda.mem_get_info(device)
    if tiles.samples.numel() > SHARE_FOR_PICTURES * free:
        log.info("the pictures are cut on the processor: %s has too little memory", device)
        return tiles
    return tiles.to(device)


def data_named(data: Sequence[str | Path], tiles: TileSet) -> str:
    """The data in a few words."""
    return f"{' '.join(Path(source).name for source in data)}: {len(tiles.entries)} pictures"
