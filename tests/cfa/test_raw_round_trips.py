from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from raw_kit import assert_equal, capture, plain, refusal

from quantisp.cfa import CFAPattern, named_patterns
from quantisp.cfa.raw import RawOptions, read_raw, write_headless, write_raw
from quantisp.cfa.raw.packed import RAW10, RAW12, unpack_rows
from quantisp.cfa.raw.sidecar import sidecar_path
from quantisp.errors import InputError

SMALL = [pattern.name for pattern in named_patterns() if max(pattern.period) <= 8]


@pytest.mark.property
@pytest.mark.parametrize("suffix", [".dng", ".npy", ".png", ".tif", ".bin"])
@pytest.mark.parametrize("cfa", SMALL)
def test_everything_comes_back(tmp_path: Path, suffix: str, cfa: str) -> None:
    raw = capture(cfa)
    write_raw(tmp_path / f"a{suffix}", raw)
    assert_equal(read_raw(tmp_path / f"a{suffix}"), raw)


@pytest.mark.property
@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("suffix", [".dng", ".npy", ".png", ".tif", ".bin"])
def test_every_depth_comes_back(tmp_path: Path, suffix: str, bits: int) -> None:
    raw = replace(capture("bayer", bits=bits), black=(0.5,) * 4)
    write_raw(tmp_path / f"a{suffix}", raw)
    assert_equal(read_raw(tmp_path / f"a{suffix}"), raw)


@pytest.mark.property
@pytest.mark.parametrize("stride", [None, 64, 67])
@pytest.mark.parametrize("width", range(1, 10))
@pytest.mark.parametrize(
    ("packing", "bits"),
    [
        *(("raw10", 10), ("raw12", 12), ("plain8", 8), ("plain8", 7)),
        *(("plain16", 14), ("plain16", 16), ("plain16-msb", 12), ("plain16-msb", 16)),
    ],
)
def test_samples_alone_come_back(
    tmp_path: Path, packing: str, bits: int, width: int, stride: int | None
) -> None:
    raw = capture("bayer", bits=bits, size=(3, width))
    path = tmp_path / "a.raw"
    write_headless(path, raw, packing=packing, stride=stride)  # pyright: ignore[reportArgumentType]
    assert_equal(read_raw(path), raw)
    # Without the sidecar the flags say the same.
    sidecar_path(path).unlink()
    said = RawOptions(
        width=width,
        height=3,
        packing=packing,  # pyright: ignore[reportArgumentType]
        stride=stride,
        bits=bits,
        pattern=raw.pattern,
        black=raw.black,
    )
    assert_equal(read_raw(path, said), plain(raw))


@pytest.mark.reference
def test_raw10_by_hand() -> None:
    # Pixel 0 in bits 1:0 of byte 5.
    packed = np.array([[0xFF, 0x00, 0x80, 0x01, 0b11_10_01_00]], dtype=np.uint8)
    assert unpack_rows(packed, 4, RAW10).tolist() == [[0x3FC, 0x001, 0x202, 0x007]]


@pytest.mark.reference
def test_raw12_by_hand() -> None:
    # Pixel 0 in bits 3:0 of byte 3.
    packed = np.array([[0xAB, 0x12, 0x3C]], dtype=np.uint8)
    assert unpack_rows(packed, 2, RAW12).tolist() == [[0xABC, 0x123]]


def test_the_challenges_file_needs_nothing(tmp_path: Path) -> None:
    codes = np.arange(24, dtype="<u2").reshape(4, 6) * 40
    path = tmp_path / "a.bin"
    path.write_bytes(np.array([6, 4], dtype="<u2").tobytes() + codes.tobytes())
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.codes, codes)
    assert raw.pattern == CFAPattern.named("rgbw-mipi")
    assert (raw.black, raw.white, raw.bits) == ((64.0,) * 16, 1023.0, 10)


@pytest.mark.parametrize("suffix", [".dng", ".npy", ".tif", ".bin"])
def test_samples_stay_on_disk(tmp_path: Path, suffix: str) -> None:
    write_raw(tmp_path / f"a{suffix}", capture())
    codes = read_raw(tmp_path / f"a{suffix}").codes
    mapped = codes
    while isinstance(mapped.base, np.ndarray):
        mapped = mapped.base
    assert isinstance(mapped, np.memmap)
    assert not codes.flags.writeable


def test_what_is_said_holds_before_the_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_raw(path, capture("bayer"))
    raw = read_raw(path, RawOptions(black=(7.0,), pattern=CFAPattern(("BG", "GR"))))
    assert raw.black == (7.0,) * 4
    assert raw.pattern.tile == ("BG", "GR")
    assert raw.as_shot_neutral == (0.5, 1.0, 0.625)


def test_the_sensitivity_of_white_comes_back(tmp_path: Path) -> None:
    raw = replace(capture(), color_matrix=None)
    raw = replace(raw, pattern=raw.pattern.with_white((0.75, 0.75, 0.75)))
    for name in ("a.npy", "a.dng"):
        write_raw(tmp_path / name, raw)
        weights = read_raw(tmp_path / name).pattern.response("W")
        assert weights == pytest.approx((0.75, 0.75, 0.75), rel=1e-8)


SIDECARS = {
    "nothing": ("", "JSON"),
    "no JSON": ("{", "JSON"),
    "a list": ("[1]", "quantisp_raw"),
    "another schema": ('{"quantisp_raw": 2}', "quantisp_raw"),
    "an unknown key": ('{"quantisp_raw": 1, "blak": 3}', "blak"),
    "NaN": ('{"quantisp_raw": 1, "white": NaN}', "white out of range"),
    "an endless number": ('{"quantisp_raw": 1, "white": 1' + "0" * 4000 + "}", "out of range"),
    "text for a number": ('{"quantisp_raw": 1, "bits": "10"}', "bits"),
    "true for a number": ('{"quantisp_raw": 1, "bits": true}', "bits"),
    "a wide pattern": ('{"quantisp_raw": 1, "pattern": "' + "R" * 17 + '/G"}', "CFA"),
    "a short neutral": ('{"quantisp_raw": 1, "as_shot_neutral": [1, 2]}', "as_shot_neutral"),
    "a negative width": ('{"quantisp_raw": 1, "width": -1}', "width"),
    "nested without end": ('{"quantisp_raw": 1, "metadata": ' + "[" * 100000, "JSON"),
    "too large": (" " * (1 << 20) + "{}", "more than"),
}


@pytest.mark.parametrize("kind", SIDECARS)
def test_a_sidecar_that_says_nonsense_is_refused(tmp_path: Path, kind: str) -> None:
    content, message = SIDECARS[kind]
    write_raw(tmp_path / "a.npy", capture("bayer"))
    sidecar_path(tmp_path / "a.npy").write_text(content)
    assert message in refusal(tmp_path / "a.npy")


def test_files_say_their_own_size(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", capture())
    assert "to say its own size" in refusal(tmp_path / "a.npy", RawOptions(width=3))
    write_raw(tmp_path / "a.dng", capture())
    assert "bits given for it" in refusal(tmp_path / "a.dng", RawOptions(bits=10))


def test_a_pattern_has_to_be_said(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", capture().codes)
    assert "--pattern" in refusal(tmp_path / "a.npy")


def test_nothing_is_written_where_the_format_cannot_hold_it(tmp_path: Path) -> None:
    for name, raw in {
        "a.dng": replace(capture("bayer"), white=1000.5),
        "a.xyz": capture("bayer"),
        "b.dng": replace(capture("bayer"), color_matrix=np.ones((5, 3))),
    }.items():
        with pytest.raises(InputError):
            write_raw(tmp_path / name, raw)
    wide = replace(plain(capture("bayer")), codes=np.zeros((2, 65536), dtype=np.uint16))
    with pytest.raises(InputError, match=r"for a \.bin, found 2x65536: write another"):
        write_raw(tmp_path / "a.bin", wide)
    with pytest.raises(InputError, match="stride"):
        write_headless(tmp_path / "a.raw", capture("bayer"), packing="raw10", stride=3)
    assert not list(tmp_path.iterdir())


def test_a_sidecar_is_what_the_documentation_shows(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.npy", capture("bayer"))
    described = json.loads(sidecar_path(tmp_path / "a.npy").read_text())
    documented = (Path(__file__).parents[2] / "docs" / "raw.md").read_text()
    assert all(f"`{key}`" in documented for key in described)
