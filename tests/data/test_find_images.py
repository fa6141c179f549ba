from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantisp.data import SAMPLE, find_images, read_picture
from quantisp.errors import ImageError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "deep/er/c.webp", ".hidden/d.png", ".e.png"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set" / "notes.txt").write_text("not a picture")
    return tmp_path / "set"


@pytest.mark.unit
def test_a_folder_is_searched_to_the_bottom_in_order(folder: Path) -> None:
    found = find_images([folder])
    assert [image.name for image in found] == ["a", "b", "c"]
    assert [image.path.relative_to(folder).as_posix() for image in found] == [
        "a.JPG",
        "b.png",
        "deep/er/c.webp",
    ]


@pytest.mark.unit
def test_files_globs_and_folders_mix_in_the_given_order(folder: Path) -> None:
    sources = [str(folder / "deep" / "**" / "*.webp"), folder / "b.png", folder]
    assert [image.name for image in find_images(sources)] == ["c", "b", "a"]


@pytest.mark.unit
def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    odd = picture(folder / "odd[1].png")
    assert [image.path for image in find_images([odd])] == [odd]


@pytest.mark.unit
def test_the_sample_is_three_photographs_that_can_be_read() -> None:
    found = find_images([SAMPLE])
    assert [image.name for image in found] == ["astronaut", "coffee", "chelsea"]
    assert all(min(read_picture(image.path).samples.shape[:2]) >= 300 for image in found)


@pytest.mark.unit
def test_names_are_unique_where_stems_collide(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/a.png", "two/a.tif"):
        picture(tmp_path / name)
    below = [image.name for image in find_images([tmp_path])]
    assert below == ["one/a.png", "two/a.png", "two/a.tif"]
    two_folders = [image.name for image in find_images([tmp_path / "one", tmp_path / "two"])]
    assert len(set(two_folders)) == 3


@pytest.mark.unit
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nowhere", "nothing is at"),
        ("nowhere/*.png", "nothing is at"),
        (".", "expected pictures .* found none"),
    ],
)
def test_what_holds_no_picture_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(ImageError, match=reason) as caught:
        find_images([tmp_path / source])
    assert "\n" not in str(caught.value)
