from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from study_kit import KODAK_CFA, SIZES, soft_picture, surveyed, write_pictures

from quantisp.cfa import CFAPattern
from quantisp.data import find_images
from quantisp.errors import ImageError
from quantisp.evaluation import mosaicked, survey

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def test_what_is_found(folder: Path) -> None:
    counts: list[tuple[int, int]] = []
    files = find_images([folder])
    pictures = survey(files, mosaicked(KODAK_CFA), lambda done, of: counts.append((done, of)))
    assert {p.name: (p.height, p.width) for p in pictures} == SIZES
    assert [p.pixels for p in pictures] == [p.height * p.width for p in pictures]
    assert len({p.sha256 for p in pictures}) == 3
    assert counts == [(1, 3), (2, 3), (3, 3)]


def spoil(folder: Path, kind: str) -> str:
    """Add an unusable picture; returns what is said of it."""
    rgb = soft_picture(9, 64, 64)
    match kind:
        case "too low":
            Image.fromarray(rgb[:31]).save(folder / "x.png")
            return "at least 32x32 px .* is 31x64"
        case "too narrow":
            Image.fromarray(rgb[:, :31]).save(folder / "x.png")
            return "at least 32x32 px .* is 64x31"
        case "grey":
            Image.fromarray(rgb[:, :, 0]).save(folder / "x.png")
            return "expected an RGB picture, .* has mode L"
        case "grey of 16 bits":
            Image.fromarray(rgb[:, :, 0].astype(np.uint16)).save(folder / "x.png")
            return "16-bit grey"
        case "CMYK":
            Image.fromarray(rgb).convert("CMYK").save(folder / "x.jpg")
            return "mode CMYK"
        case "float":
            tifffile.imwrite(folder / "x.tif", rgb.astype(np.float32), photometric="rgb")
            return "holds float32"
        case "truncated":
            Image.fromarray(rgb).save(folder / "x.png")
            content = (folder / "x.png").read_bytes()
            (folder / "x.png").write_bytes(content[: len(content) // 2])
            return "expected a whole picture"
        case _:
            (folder / "x.png").write_bytes(b"")
            return "expected a whole picture"


KINDS = ["too low", "too narrow", "grey", "grey of 16 bits", "CMYK", "float", "truncated", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_pictures_are_refused_by_name(folder: Path, kind: str) -> None:
    message = spoil(folder, kind)
    with pytest.raises(ImageError, match=message) as caught:
        surveyed(folder)
    assert str(folder / "x") in str(caught.value)


def test_a_picture_must_hold_a_period(folder: Path) -> None:
    wide = CFAPattern(tuple("RG" * 8 for _ in range(2)))
    Image.fromarray(soft_picture(9, 32, 32)).save(folder / "x.png")
    assert len(survey(find_images([folder]), mosaicked(wide))) == 4


def test_transparency_is_left_out_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rgb = Image.fromarray(soft_picture(9, 40, 40))
    rgb.save(tmp_path / "opaque.png")
    rgb.putalpha(128)
    rgb.save(tmp_path / "clear.png")
    clear, opaque = surveyed(tmp_path)
    assert clear.sha256 == opaque.sha256
    assert "its transparency is left out" in caplog.text
    assert "opaque" not in caplog.text
