"""Decoded pictures in one block of memory, or mapped from one file that is decoded only once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from quantisp.data.datasets import read_training_picture
from quantisp.data.images import ImageFile
from quantisp.errors import ImageError, OutputError
from quantisp.files import cannot_write, make_folder

__all__ = ["CELL_PX", "Tile", "TileSet", "decode_tiles", "open_tiles", "remove_tiles"]

log = logging.getLogger(__name__)

CELL_PX = 64
# Even a flat cell counts as this much detail, in 8-bit steps.
LEAST_DETAIL = 1.0
SAMPLES_NAME = "pictures.u8"
INDEX_NAME = "pictures.jsonl"
LOCK_NAME = "pictures.lock"
# Pictures in hand at once while decoding.
AHEAD = 16

# Anonymous axes: tiles of one set differ in size.
Tile = UInt8[Tensor, "3 _ _"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One decoded picture: where its samples begin, and how much detail each of its cells has."""

    name: str
    sha256: str
    height: int
    width: int
    offset: int
    detail: tuple[float, ...]


class TileSet:
    """Pictures, 8 bits a sample, plane by plane, one after the other in one block.

    Args:
        samples: the block.
        entries: the pictures in it.
    """

    def __init__(self, samples: UInt8[Tensor, " bytes"], entries: Sequence[Entry]) -> None:
        self.samples = samples
        self.entries = tuple(entries)

    @classmethod
    def of(cls, tiles: Sequence[Tile]) -> TileSet:
        """Pictures that are in memory already."""
        entries: list[Entry] = []
        offset = 0
        for number, tile in enumerate(tiles):
            entries.append(_described(f"{number}", tile, offset))
            offset += tile.numel()
        return cls(torch.cat([tile.reshape(-1) for tile in tiles]), entries)

    def to(self, device: torch.device | str) -> TileSet:
        """The same pictures in the memory of ``device``."""
        return TileSet(self.samples.to(device), self.entries)

    def sha256(self) -> str:
        """A digest of the pixels, and of their order."""
        return hashlib.sha256(" ".join(e.sha256 for e in self.entries).encode()).hexdigest()


def decode_tiles(
    files: Sequence[ImageFile],
    folder: Path,
    *,
    at_least_px: int,
    on_read: Callable[[int], None] | None = None,
) -> None:
    """Decode pictures into ``folder``, from where :func:`open_tiles` maps them.

    A decoding that was killed goes on where it was; one that is complete is left as it is; one of
    other files is made anew. A picture that is damaged or too small is named in the log, counted
    and skipped.

    Args:
        files: the pictures.
        folder: made if need be.
        at_least_px: the smallest height and width that is of use.
        on_read: called with the number of pictures read so far.
    Raises:
        ImageError: no picture was usable.
        OutputError: ``folder`` cannot be written to, or is full.
    """
    make_folder(folder)
    key = _key(files, at_least_px)
    try:
        lock = (folder / LOCK_NAME).open("ab")
        # Another run that decodes the same is waited for, and its work used.
        fcntl.flock(lock, fcntl.LOCK_EX)
        known, size = _read_journal(folder, key)
        if not known:
            # A run that has the old ones mapped keeps them.
            remove_tiles(folder, keep_folder=True)
        with (
            lock,
            (folder / SAMPLES_NAME).open("r+b" if known else "wb") as samples,
            (folder / INDEX_NAME).open("r+b" if known else "wb") as index,
        ):
            # Whatever a kill left half-written lies beyond the last whole line.
            samples.truncate(_end_of(known))
            samples.seek(_end_of(known))
            index.truncate(size)
            index.seek(size)
            if not known:
                index.write(_line({"key": key}))
            for line in _decoded(files[len(known) :], at_least_px, samples, _end_of(known)):
                index.write(_line(line))
                known.append(line)
                if on_read is not None:
                    on_read(len(known))
    except OSError as error:
        raise cannot_write(folder, error) from error
    skipped = [line["skipped"] for line in known if "skipped" in line]
    if len(skipped) == len(files):
        remove_tiles(folder)
        raise ImageError(
            f"expected pictures of at least {at_least_px}x{at_least_px} px, none of the "
            f"{len(files)} found is usable{f' ({skipped[0]})' if skipped else ''}: "
            "name another folder with --data"
        )
    if skipped:
        log.warning("%d of %d pictures were skipped", len(skipped), len(files))


def open_tiles(folder: Path) -> TileSet:
    """Map the pictures that :func:`decode_tiles` put into ``folder``.

    Raises:
        OutputError: they are not there, or not whole.
    """
    try:
        text = (folder / INDEX_NAME).read_bytes()
        lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()][1:]
        entries = [_entry(line) for line in lines if "skipped" not in line]
        # Private, so that nothing writes to the file; pages are read as they are needed.
        samples = torch.from_file(
            str(folder / SAMPLES_NAME), shared=False, size=_end_of(lines), dtype=torch.uint8
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"expected decoded pictures in {folder}, they cannot be read "
            f"({str(error).splitlines()[0]}): remove the folder"
        ) from error
    return TileSet(samples, entries)


def remove_tiles(folder: Path, *, keep_folder: bool = False) -> None:
    """Remove what :func:`decode_tiles` put into ``folder``, and the folder if it is empty then."""
    for name in (SAMPLES_NAME, INDEX_NAME):
        (folder / name).unlink(missing_ok=True)
    if keep_folder:
        return
    (folder / LOCK_NAME).unlink(missing_ok=True)
    # Not empty, or not ours to remove.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _entry(line: dict[str, Any]) -> Entry:
    stored: dict[str, Any] = {**line, "detail": tuple(line["detail"])}
    return Entry(**stored)


def _decoded(
    files: Sequence[ImageFile], at_least_px: int, samples: Any, offset: int
) -> Iterator[dict[str, Any]]:
    """Append the samples of each file; say of each what is to stand in the index."""

    def read(file: ImageFile) -> tuple[Tile, Entry] | ImageError:
        try:
            tile = _eight_bits(file, at_least_px)
        except ImageError as error:
            return error
        return tile, _described(file.name, tile, 0)

    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for outcome in _in_order(pool, read, files):
            if isinstance(outcome, ImageError):
                log.warning("skipped: %s", outcome)
                yield {"skipped": str(outcome)}
                continue
            tile, entry = outcome
            samples.write(tile.numpy().tobytes())
            samples.flush()
            yield vars(replace(entry, offset=offset))
            offset += tile.numel()


def _in_order(
    pool: ThreadPoolExecutor,
    read: Callable[[ImageFile], tuple[Tile, Entry] | ImageError],
    files: Iterable[ImageFile],
) -> Iterator[tuple[Tile, Entry] | ImageError]:
    # Not pool.map, which would decode millions of pictures into memory ahead of the writing.
    waiting: list[Any] = []
    for file in files:
        waiting.append(pool.submit(read, file))
        if len(waiting) >= AHEAD:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _eight_bits(file: ImageFile, at_least_px: int) -> Tile:
    samples = read_training_picture(file)
    if min(samples.shape[:2]) < at_least_px:
        raise ImageError(f"{file.path} is smaller than {at_least_px}x{at_least_px} px")
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(2, 0, 1)))


def _described(name: str, tile: Tile, offset: int) -> Entry:
    return Entry(
        name=name,
        sha256=hashlib.sha256(f"{tuple(tile.shape)}".encode() + tile.numpy().tobytes()).hexdigest(),
        height=tile.shape[1],
        width=tile.shape[2],
        offset=offset,
        detail=tuple(round(value, 4) for value in _detail(tile).flatten().tolist()),
    )


def _detail(tile: Tile) -> Float[Tensor, "rows columns"]:
    """Root mean square of the Laplacian per cell, in 8-bit steps; cells at the edges may be cut."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).view(1, 1, 3, 3)
    edges = functional.conv2d(tile.float()[:, None], kernel, padding=0)
    energy = functional.avg_pool2d(edges.square().mean(0)[None], CELL_PX, ceil_mode=True)[0, 0]
    return energy.sqrt().clamp_(min=LEAST_DETAIL)


def _key(files: Sequence[ImageFile], at_least_px: int) -> str:
    """Changes with the files, their sizes and their times."""
    digest = hashlib.sha256(f"{at_least_px}".encode())
    for file in files:
        found = file.path.stat()
        kind, path = type(file).__name__, os.fsencode(file.path)
        digest.update(f"{kind} {path!r} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_journal(folder: Path, key: str) -> tuple[list[dict[str, Any]], int]:
    """What is decoded already, and the size in bytes of the lines that say so."""
    path = folder / INDEX_NAME
    lines: list[dict[str, Any]] = []
    size = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
        if not line.endswith(b"\n"):
            lines.pop()
            break
        size += len(line)
    samples = folder / SAMPLES_NAME
    whole = samples.stat().st_size if samples.exists() else 0
    if not lines or lines[0] != {"key": key} or whole < _end_of(lines[1:]):
        return [], 0
    return lines[1:], size


def _end_of(lines: Sequence[dict[str, Any]]) -> int:
    last = next((line for line in reversed(lines) if "skipped" not in line), None)
    return 0 if last is None else last["offset"] + 3 * last["height"] * last["width"]


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
