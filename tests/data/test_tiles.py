from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from quantisp.data import ImageFile, TileSet, decode_tiles, open_tiles, remove_tiles, tiles
from quantisp.errors import ImageError, OutputError

pytestmark = pytest.mark.unit


def stored(folder: Path, name: str, samples: np.ndarray) -> ImageFile:
    Image.fromarray(samples).save(folder / name)
    return ImageFile(name=name, path=folder / name)


def noise(seed: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    return [stored(tmp_path, f"{seed}.png", noise(seed, 40 + seed)) for seed in range(5)]


def pictures(found: TileSet) -> list[torch.Tensor]:
    return [
        found.samples[e.offset : e.offset + 3 * e.height * e.width].view(3, e.height, e.width)
        for e in found.entries
    ]


def decoded(files: list[ImageFile], folder: Path, **options: Any) -> TileSet:
    decode_tiles(files, folder, at_least_px=32, **options)
    return open_tiles(folder)


def test_pictures_come_back_as_they_were(files: list[ImageFile], tmp_path: Path) -> None:
    found = decoded(files, tmp_path / "cache")
    for seed, picture in enumerate(pictures(found)):
        assert torch.equal(picture, torch.from_numpy(noise(seed, 40 + seed)).permute(2, 0, 1))
    # The same as of tiles in memory, but for the names.
    in_memory = TileSet.of([picture.clone() for picture in pictures(found)])
    assert in_memory.sha256() == found.sha256()
    assert [e.detail for e in in_memory.entries] == [e.detail for e in found.entries]
    assert torch.equal(in_memory.samples, found.samples)


def test_training_cannot_change_the_file(files: list[ImageFile], tmp_path: Path) -> None:
    found = decoded(files, tmp_path / "cache")
    found.samples[:100] = 0
    assert not torch.equal(open_tiles(tmp_path / "cache").samples[:100], found.samples[:100])


def test_nothing_is_decoded_twice(
    files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decoded(files, tmp_path / "cache")
    monkeypatch.setattr(tiles, "read_training_picture", None)
    assert decoded(files, tmp_path / "cache").sha256() == first.sha256()


def test_changed_files_are_decoded_anew(files: list[ImageFile], tmp_path: Path) -> None:
    first = decoded(files, tmp_path / "cache")
    stored(tmp_path, "2.png", noise(99))
    assert decoded(files, tmp_path / "cache").sha256() != first.sha256()
    assert len(decoded(files[:2], tmp_path / "cache").entries) == 2


class Killed(BaseException):
    pass


@pytest.mark.parametrize("torn", ["", "index", "samples"])
def test_a_decoding_that_was_killed_goes_on(
    files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    def stop(count: int) -> None:
        if count == 3:
            raise Killed

    folder = tmp_path / "cache"
    with pytest.raises(Killed):
        decode_tiles(files, folder, at_least_px=32, on_read=stop)
    if torn == "index":
        with (folder / "pictures.jsonl").open("ab") as index:
            index.write(b'{"name": "half of a li')
    if torn == "samples":
        with (folder / "pictures.u8").open("ab") as samples:
            samples.write(bytes(1000))
    read: list[str] = []
    original = tiles.read_training_picture

    def noted(file: ImageFile) -> Any:
        read.append(file.name)
        return original(file)

    monkeypatch.setattr(tiles, "read_training_picture", noted)
    found = decoded(files, folder)
    assert sorted(read) == ["3.png", "4.png"]
    assert found.sha256() == decoded(files, tmp_path / "straight").sha256()


def test_lost_samples_are_decoded_again(files: list[ImageFile], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    expected = decoded(files, folder).sha256()
    os.truncate(folder / "pictures.u8", 100)
    with pytest.raises(OutputError, match=r"cannot be read .*remove the folder"):
        open_tiles(folder)
    assert decoded(files, folder).sha256() == expected


def test_bad_pictures_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = noise(0)
    good = stored(tmp_path, "good.png", samples)
    small = stored(tmp_path, "small.png", samples[:31])
    grey = stored(tmp_path, "grey.png", samples[:, :, 0])
    broken = stored(tmp_path, "broken.png", samples)
    broken.path.write_bytes(broken.path.read_bytes()[:500])
    counts: list[int] = []
    with caplog.at_level(logging.WARNING, logger="quantisp"):
        found = decoded([small, good, broken, grey], tmp_path / "cache", on_read=counts.append)
    assert [entry.name for entry in found.entries] == ["good.png"]
    assert counts == [1, 2, 3, 4]
    told = caplog.text
    assert all(name in told for name in ("small.png", "broken.png", "grey.png"))
    assert "good.png" not in told
    assert "3 of 4 pictures were skipped" in told


def test_16_bits_are_rounded_to_8(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.stack([values] * 3, axis=-1), photometric="rgb")
    (tile,) = pictures(decoded([ImageFile(name="deep", path=path)], tmp_path / "cache"))
    expected = np.rint(values.astype(np.float64) * 255 / 65535).astype(np.uint8)
    assert np.array_equal(tile[1].numpy(), expected)


def test_nothing_usable_is_refused_and_nothing_left(tmp_path: Path) -> None:
    small = stored(tmp_path, "small.png", np.zeros((8, 8, 3), np.uint8))
    for given in ([], [small]):
        with pytest.raises(ImageError, match=f"none of the {len(given)} found is usable") as caught:
            decode_tiles(given, tmp_path / "cache", at_least_px=64)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "cache").exists()


def test_only_what_was_decoded_is_removed(files: list[ImageFile], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    decode_tiles(files, folder, at_least_px=32)
    remove_tiles(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_one_line(
    files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_content: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dumps", full)
    with pytest.raises(OutputError, match=r"cannot write .*No space left on device.*free some"):
        decode_tiles(files, tmp_path / "cache", at_least_px=32)


def test_none_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="expected decoded pictures in"):
        open_tiles(tmp_path / "nowhere")
