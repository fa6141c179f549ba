"""TIFF can hold nearly anything; what is read is RGB, upright, at full depth."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from quantisp.data import read_picture
from quantisp.errors import ImageError

pytestmark = pytest.mark.unit


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (6, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_set_upright_as_pillow_does(
    tmp_path: Path, colours: np.ndarray, orientation: int
) -> None:
    path = tmp_path / "p.tif"
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(path, colours, photometric="rgb", extratags=[tag])
    exif = Image.Exif()
    exif[274] = orientation
    lying = Image.fromarray(colours)
    lying.getexif().update(exif)
    upright = np.asarray(ImageOps.exif_transpose(lying))
    assert np.array_equal(read_picture(path).samples, upright)


def test_ycbcr_without_jpeg_is_refused(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "p.tif"
    Image.fromarray(colours).convert("YCbCr").save(path)
    with pytest.raises(ImageError, match="convert it to RGB"):
        read_picture(path)


def test_12_bits_are_refused(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, colours.astype(np.uint16), photometric="rgb", bitspersample=12)
    with pytest.raises(ImageError, match="holds 12 bits"):
        read_picture(path)


def test_further_pages_are_left_out_and_it_is_said(
    tmp_path: Path, colours: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, np.stack([colours, colours[::-1]]), photometric="rgb")
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_picture(path).samples, colours)
    assert "1 pages after the first" in caplog.text


def test_only_named_formats_are_decoded(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "p.bmp"
    Image.fromarray(colours).save(path)
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_picture(path)
