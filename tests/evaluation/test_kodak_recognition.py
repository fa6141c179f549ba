from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantisp.data import find_images, read_picture
from quantisp.evaluation.kodak import KODAK, is_kodak

pytestmark = pytest.mark.unit


def digests(folder: Path) -> list[str]:
    return [read_picture(file.path).sha256() for file in find_images([folder])]


def test_by_content_whatever_the_names_and_the_format(
    kodak: tuple[Path, ...], tmp_path: Path
) -> None:
    for number, path in enumerate(kodak):
        shutil.copy(path, tmp_path / f"{(7 * number) % 24}.png")
    rewritten = tmp_path / "0.png"
    Image.open(rewritten).save(tmp_path / "z.tif")
    rewritten.unlink()
    found = digests(tmp_path)
    assert is_kodak(found)
    assert not is_kodak(found[1:])
    assert not is_kodak([*found, found[0]])

    samples = read_picture(tmp_path / "1.png").samples.copy()
    samples[100, 100, 1] ^= 1
    Image.fromarray(np.asarray(samples)).save(tmp_path / "1.png")
    assert not is_kodak(digests(tmp_path))


def test_every_picture_once() -> None:
    listed = sorted(KODAK)
    assert is_kodak(listed)
    assert not is_kodak([*listed[1:], listed[1]])
    assert not is_kodak([])
