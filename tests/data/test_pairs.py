"""Inputs and targets, matched by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantisp.data import find_pairs
from quantisp.errors import ImageError

pytestmark = pytest.mark.unit


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def test_partners_have_one_path_below_their_folders(tmp_path: Path):
    inputs, targets = tmp_path / "in", tmp_path / "out"
    write(inputs / "b.png", inputs / "day" / "a.jpg", targets / "day" / "a.png", targets / "b.png")
    found = [(pair.name, pair.input_path, pair.target_path) for pair in find_pairs(inputs, targets)]
    assert found == [
        ("b", inputs / "b.png", targets / "b.png"),
        ("day/a", inputs / "day" / "a.jpg", targets / "day" / "a.png"),
    ]


@pytest.mark.parametrize("side", ["in", "out"])
def test_a_missing_partner_is_named(tmp_path: Path, side: str):
    inputs, targets = tmp_path / "in", tmp_path / "out"
    write(inputs / "a.png", targets / "a.png", tmp_path / side / "x.png", tmp_path / side / "y.png")
    with pytest.raises(ImageError, match=rf"'x' and 1 more in .*{side} has none in"):
        find_pairs(inputs, targets)


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    inputs, targets = tmp_path / "in", tmp_path / "out"
    write(inputs / "a.png", inputs / "a.jpg", targets / "a.png")
    with pytest.raises(ImageError, match="differ only in their suffix"):
        find_pairs(inputs, targets)


def test_folders_must_be_there(tmp_path: Path):
    write(tmp_path / "in" / "a.png")
    with pytest.raises(ImageError, match="expected a folder of pictures"):
        find_pairs(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ImageError, match="expected a folder of pictures"):
        find_pairs(tmp_path / "in" / "a.png", tmp_path / "in")
