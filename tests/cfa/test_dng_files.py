from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from raw_kit import assert_equal, capture, refusal

from quantisp.cfa import CFAPattern, named_patterns
from quantisp.cfa.raw import RawOptions, read_raw, write_dng
from quantisp.cfa.raw.dng_writing import encode_dng
from quantisp.cfa.raw.tags import smallest
from quantisp.cfa.simulation import SRGB_MATRIX
from quantisp.errors import SettingError

rawpy: Any = pytest.importorskip("rawpy")

NAMES = [pattern.name for pattern in named_patterns()]
BAYER_TAGS: dict[int, tuple[int, int, Any]] = {
    33421: (3, 2, (2, 2)),
    33422: (1, 4, b"\0\1\1\2"),
    50717: (4, 1, 1023),
}


def tiff(path: Path, codes: Any, tags: dict[int, Any] | None = None, **options: Any) -> Path:
    """A mosaic written by tifffile alone."""
    merged = {**BAYER_TAGS, **(tags or {})}
    extra = [(code, *value, True) for code, value in merged.items() if value is not None]
    options = {"photometric": 32803, "metadata": None, **options}
    tifffile.imwrite(path, codes, extratags=extra, **options)
    return path


CODES = np.random.default_rng(0).integers(0, 1024, (12, 18), dtype=np.uint16)


@pytest.mark.reference
@pytest.mark.parametrize("cfa", NAMES)
def test_tifffile_reads_what_is_written(tmp_path: Path, cfa: str) -> None:
    raw = capture(cfa)
    write_dng(tmp_path / "a.dng", raw)
    with tifffile.TiffFile(tmp_path / "a.dng") as file:
        page: Any = file.pages[0]
        np.testing.assert_array_equal(page.asarray(), raw.codes)
        assert page.tags.valueof("CFARepeatPatternDim") == raw.pattern.period
        letters = ["RGBCMYW"[n] for n in page.tags.valueof("CFAPattern")]
        assert letters == list("".join(raw.pattern.tile))
        assert len(page.tags.valueof("ColorMatrix1")) == 2 * raw.color_matrix.size  # type: ignore[union-attr]
        assert page.tags.valueof("ActiveArea") == (0, 0, *raw.size)


@pytest.mark.reference
@pytest.mark.parametrize("cfa", NAMES)
def test_libraw_reads_what_is_written(tmp_path: Path, cfa: str) -> None:
    raw = replace(capture(cfa, size=(48, 60)), black=(16.0,) * len(capture(cfa).black))
    write_dng(tmp_path / "a.dng", raw)
    with rawpy.imread(str(tmp_path / "a.dng")) as read:
        np.testing.assert_array_equal(read.raw_image_visible, raw.codes)
        assert read.black_level_per_channel[0] == 16
        assert read.white_level == 1023
        gains = np.array(read.camera_whitebalance[:3])
        np.testing.assert_allclose(gains / gains[1], [2.0, 1.0, 1.6], rtol=1e-6)
        # What it develops with: from balanced camera RGB to sRGB.
        camera = raw.color_matrix @ np.linalg.inv(SRGB_MATRIX)  # type: ignore[operator]
        developing = np.linalg.pinv(camera / camera.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(read.color_matrix[:, : len(camera)], developing, atol=2e-3)
        assert read.sizes.flip == 6


@pytest.mark.reference
@pytest.mark.parametrize("tile", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_libraw_and_our_reader_agree(tmp_path: Path, tile: str) -> None:
    pattern = CFAPattern((tile[:2], tile[2:]))
    raw = replace(capture("bayer", size=(48, 60)), pattern=pattern, black=(1.0, 2.0, 3.0, 4.0))
    write_dng(tmp_path / "a.dng", raw)
    # Under another name it goes through LibRaw.
    (tmp_path / "a.nef").write_bytes((tmp_path / "a.dng").read_bytes())
    found = read_raw(tmp_path / "a.nef")
    np.testing.assert_array_equal(found.codes, raw.codes)
    assert (found.pattern, found.black, found.white) == (raw.pattern, raw.black, raw.white)
    assert found.as_shot_neutral == pytest.approx(raw.as_shot_neutral)
    assert found.orientation == 6


@pytest.mark.parametrize("cfa", ["rgbw-kodak", "rgbw-mipi", "rgbw-gindele", "quad-bayer"])
def test_what_libraw_mislabels_is_refused(tmp_path: Path, cfa: str) -> None:
    write_dng(tmp_path / "a.nef", capture(cfa, size=(48, 60)))
    assert "LibRaw to see the CFA that the tags" in refusal(tmp_path / "a.nef")


def test_a_camera_file_without_tags_needs_its_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dng(tmp_path / "a.raf", capture("bayer", size=(48, 60)))
    monkeypatch.setattr("quantisp.cfa.raw.camera._tags_pattern", lambda path: None)
    assert "--pattern RG/GB" in refusal(tmp_path / "a.raf")
    given = RawOptions(pattern=CFAPattern.named("bayer"))
    assert read_raw(tmp_path / "a.raf", given).pattern == CFAPattern.named("bayer")
    other = RawOptions(pattern=CFAPattern(("BG", "GR")))
    assert "correct --pattern" in refusal(tmp_path / "a.raf", other)


def test_without_rawpy_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dng(tmp_path / "a.nef", capture("bayer"))
    monkeypatch.setitem(__import__("sys").modules, "rawpy", None)
    assert "pip install 'quantisp[raw]'" in refusal(tmp_path / "a.nef")


@pytest.mark.reference
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": 2},
        {"byteorder": ">"},
        {"tile": (16, 16), "compression": "zlib"},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_what_tifffile_writes_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    raw = read_raw(tiff(tmp_path / "a.dng", CODES, **options))
    np.testing.assert_array_equal(raw.codes, CODES)
    assert (raw.pattern.name, raw.white, raw.black) == ("bayer", 1023.0, (0.0,) * 4)


@pytest.mark.reference
def test_lossless_jpeg_is_read(tmp_path: Path) -> None:
    stream = imagecodecs.ljpeg_encode(CODES, bitspersample=10)
    path = tiff(
        tmp_path / "a.dng",
        iter([stream]),
        compression=7,
        shape=CODES.shape,
        dtype=np.uint16,
        rowsperstrip=12,
    )
    np.testing.assert_array_equal(read_raw(path).codes, CODES)


def test_the_active_area_is_what_is_returned(tmp_path: Path) -> None:
    raw = read_raw(tiff(tmp_path / "a.dng", CODES, {50829: (4, 4, (3, 2, 11, 17))}))
    np.testing.assert_array_equal(raw.codes, CODES[3:11, 2:17])
    # Pattern and levels count from there.
    assert raw.pattern == CFAPattern.named("bayer")


def test_the_linearization_table_is_applied(tmp_path: Path) -> None:
    table = (np.arange(600) ** 2 // 400).astype(np.uint16)
    tags = {50712: (3, len(table), tuple(int(n) for n in table))}
    raw = read_raw(tiff(tmp_path / "a.dng", CODES, tags))
    np.testing.assert_array_equal(raw.codes, table[np.minimum(CODES, 599)])


def test_black_levels_of_another_period(tmp_path: Path) -> None:
    one_row = {50713: (3, 2, (1, 2)), 50714: (3, 2, (60, 64))}
    assert read_raw(tiff(tmp_path / "a.dng", CODES, one_row)).black == (60.0, 64.0, 60.0, 64.0)
    unlike = {50713: (3, 2, (4, 1)), 50714: (3, 4, (1, 2, 3, 4))}
    assert "unlike the CFA" in refusal(tiff(tmp_path / "a.dng", CODES, unlike))
    alike = {50713: (3, 2, (4, 1)), 50714: (3, 4, (1, 2, 1, 2))}
    assert read_raw(tiff(tmp_path / "a.dng", CODES, alike)).black == (1.0, 1.0, 2.0, 2.0)


def test_a_tile_that_repeats_is_its_smallest() -> None:
    assert smallest(("RGRG", "GBGB", "RGRG", "GBGB")) == ("RG", "GB")
    assert smallest(("RRGG", "RRGG", "GGBB", "GGBB")) == ("RRGG", "RRGG", "GGBB", "GGBB")
    for pattern in named_patterns():
        assert smallest(pattern.tile) == pattern.tile


def test_a_mosaic_in_a_sub_ifd(tmp_path: Path) -> None:
    path = tmp_path / "a.dng"
    with tifffile.TiffWriter(path) as file:
        preview = np.zeros((8, 8, 3), dtype=np.uint8)
        neutral = (50728, 5, 3, (1, 2, 1, 1, 5, 8), True)
        file.write(preview, photometric="rgb", subifds=1, extratags=[neutral], metadata=None)
        extra = [(code, *value, True) for code, value in BAYER_TAGS.items()]
        file.write(CODES, photometric=32803, extratags=extra, metadata=None)
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.codes, CODES)
    assert raw.as_shot_neutral == (0.5, 1.0, 0.625)


BAD: dict[str, tuple[dict[int, Any], str]] = {
    "no pattern": ({33422: None}, "no CFAPattern"),
    "a pattern too short": ({33422: (1, 3, b"\0\1\1")}, "CFAPattern of 3"),
    "a colour without a plane": ({33422: (1, 4, b"\0\1\1\6")}, "of the colours RGB"),
    "a colour without a letter": ({33422: (1, 4, b"\0\1\1\x63")}, "of the colours RGB"),
    "a colour below zero": ({33422: (6, 4, (0, 1, 1, -1))}, "of the colours RGB"),
    "a plane below zero": ({50710: (6, 3, (0, 1, -1))}, "colour planes"),
    "a huge tile": ({33421: (3, 2, (9, 9)), 33422: (1, 81, b"\1" * 81)}, "repeats every 9x9"),
    "no tile": ({33421: (3, 2, (0, 0))}, "repeats every 0x0"),
    "a plane twice": ({50710: (1, 3, b"\0\0\2")}, "colour planes"),
    "a slanted layout": ({50711: (3, 1, 2)}, "rectangular"),
    "an area outside": ({50829: (4, 4, (0, 0, 13, 18))}, "active area"),
    "an empty area": ({50829: (4, 4, (4, 0, 4, 18))}, "active area"),
    "black above white": ({50714: (3, 1, 2000)}, "below the white level"),
    "a black of 1/0": ({50714: (5, 1, (1, 0))}, "BlackLevel"),
    "black by row": ({50716: (10, 12, (1, 2) * 12)}, "BlackLevelDeltaV"),
    "a neutral of zero": ({50728: (5, 3, (0, 1, 1, 1, 1, 1))}, "AsShotNeutral"),
    "a neutral too short": ({50728: (5, 2, (1, 1, 1, 1))}, "AsShotNeutral of 2"),
    "a matrix too short": ({50721: (10, 6, (1, 2) * 6)}, "ColorMatrix1 of 6"),
    "an odd noise profile": ({51041: (12, 3, (1.0, 2.0, 3.0))}, "NoiseProfile"),
    "a noise of NaN": ({51041: (12, 2, (float("nan"), 2.0))}, "NoiseProfile"),
    "an orientation of 9": ({274: (3, 1, 9)}, "orientation"),
}


@pytest.mark.parametrize("kind", BAD)
def test_tags_that_mean_nothing_are_refused(tmp_path: Path, kind: str) -> None:
    tags, message = BAD[kind]
    assert message in refusal(tiff(tmp_path / "a.dng", CODES, tags))


def test_no_mosaic(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.dng", CODES, photometric="minisblack")
    assert "no page with a colour filter array" in refusal(tmp_path / "a.dng")


def test_another_pattern_is_never_taken_silently(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", capture("bayer"))
    with pytest.raises(SettingError, match="leave out --pattern"):
        read_raw(tmp_path / "a.dng", RawOptions(pattern=CFAPattern(("BG", "GR"))))


def test_levels_that_are_given_hold(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", capture("bayer"))
    raw = read_raw(tmp_path / "a.dng", RawOptions(black=(5.0,), white=900.0))
    assert (raw.black, raw.white) == ((5.0,) * 4, 900.0)


def bomb(changed: Callable[[bytearray], None]) -> bytes:
    content = bytearray(encode_dng(capture("bayer")))
    changed(content)
    return bytes(content)


def set_tag(content: bytearray, code: int, value: int) -> None:
    """Overwrite the first value of a tag in the first IFD."""
    offset = int.from_bytes(content[4:8], "little")
    for entry in range(int.from_bytes(content[offset : offset + 2], "little")):
        at = offset + 2 + 12 * entry
        if int.from_bytes(content[at : at + 2], "little") == code:
            content[at + 8 : at + 12] = value.to_bytes(4, "little")
            return
    raise AssertionError(code)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (256, 0),
        (256, 1 << 31),
        (257, 1 << 20),
        (257, 0xFFFFFFFF),
        (259, 34712),
        (273, 0xFFFFFFF0),
        (277, 3),
        (278, 0),
        (279, 0),
        (279, 0xFFFFFFFF),
    ],
)
def test_headers_that_promise_too_much_are_refused(tmp_path: Path, code: int, value: int) -> None:
    content = bomb(lambda content: set_tag(content, code, value))
    (tmp_path / "a.dng").write_bytes(content)
    assert "expected a mosaic in the DNG" in refusal(tmp_path / "a.dng")


def test_a_small_file_cannot_promise_a_large_picture(tmp_path: Path) -> None:
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        iter([imagecodecs.zlib_encode(b"\0" * 100)]),
        shape=(16000, 16000),
        dtype=np.uint16,
        rowsperstrip=16000,
        compression=8,
        photometric=32803,
        extratags=[(code, *value, True) for code, value in BAYER_TAGS.items()],
        metadata=None,
    )
    (tmp_path / "a.dng").write_bytes(stream.getvalue())
    assert "header of 16000x16000" in refusal(tmp_path / "a.dng")


def test_equal_bytes_for_equal_captures() -> None:
    assert encode_dng(capture()) == encode_dng(capture())


def test_a_tiff_with_a_mosaic_describes_itself(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", capture("bayer"))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.dng").read_bytes())
    assert_equal(read_raw(tmp_path / "a.tif"), capture("bayer"))
