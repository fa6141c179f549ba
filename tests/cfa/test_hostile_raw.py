"""Damaged and hostile files: an error of one line, or a picture; never a crash or much memory."""

from __future__ import annotations

import logging
import struct
import tempfile
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_kit import capture, refusal

from quantisp.cfa import CFAPattern
from quantisp.cfa.raw import RawOptions, read_raw, write_dng, write_headless, write_raw
from quantisp.cfa.raw.sidecar import sidecar_path
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import InputError

BAYER = CFAPattern.named("bayer")
ENDINGS = ("dng", "npy", "png", "tif", "bin", "raw", "nef", "json")
# What 300 pixels may take, decoders' tables and all.
MOST_BYTES = 32 << 20
EXTREMES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 24, 1 << 31, (1 << 32) - 1)


def good(ending: str) -> RawImage:
    """LibRaw takes nothing that is smaller."""
    return capture("bayer", size=(48, 60) if ending == "nef" else (14, 22))


@cache
def whole(ending: str) -> bytes:
    """A good file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        raw = good(ending)
        if ending in ("raw", "json"):
            path = Path(folder) / "a.raw"
            write_headless(path, raw, packing="raw10", stride=31)
        elif ending == "nef":
            write_dng(path, raw)
        else:
            write_raw(path, raw)
        return (sidecar_path(path) if ending == "json" else path).read_bytes()


def read_or_refuse(ending: str, content: bytes) -> None:
    """Read what may be damaged; the samples are looked at, for they may be mapped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{'raw' if ending == 'json' else ending}"
        path.write_bytes(whole("raw") if ending == "json" else content)
        beside = content if ending == "json" else b'{"quantisp_raw": 1, "pattern": "RGGB"}'
        options = RawOptions()
        if ending == "raw":
            options = RawOptions(width=22, height=14, packing="raw10", stride=31, pattern=BAYER)
        elif ending in ("npy", "png", "tif", "json"):
            sidecar_path(path).write_bytes(beside)
        tracemalloc.start()
        try:
            raw = read_raw(path, options)
            assert raw.codes.ndim == 2
            assert int(raw.codes.max()) <= 0xFFFF
            assert len(raw.black) == raw.pattern.period[0] * raw.pattern.period[1]
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < MOST_BYTES


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, lengthened, or with numbers changed, mostly in its first or last kilobyte."""
    changed = bytearray(content)
    ends = st.one_of(
        st.integers(0, min(400, len(content) - 1)),
        st.integers(max(0, len(content) - 1400), len(content) - 1),
    )
    for _ in range(draw(st.integers(0, 4))):
        at = draw(ends)
        width = draw(st.sampled_from((1, 2, 4)))
        value = draw(st.one_of(st.sampled_from(EXTREMES), st.integers(0, (1 << 32) - 1)))
        order = draw(st.sampled_from(("<", ">")))
        packed = struct.pack(f"{order}I", value)
        part = packed[:width] if order == "<" else packed[4 - width :]
        changed[at : at + width] = part[: len(changed) - at]
    cut = draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))
    return bytes(changed[:cut]) + draw(st.binary(max_size=8))


@pytest.mark.property
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ENDINGS)
def test_damage_never_gets_through(ending: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(damaged(whole(ending)))
    def check(content: bytes) -> None:
        read_or_refuse(ending, content)

    check()


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_undamaged_file_is_read(ending: str) -> None:
    """The twin: without damage there is a picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{'raw' if ending == 'json' else ending}"
        path.write_bytes(whole("raw") if ending == "json" else whole(ending))
        if ending == "json":
            sidecar_path(path).write_bytes(whole("json"))
        options = RawOptions(pattern=BAYER)
        if ending == "raw":
            options = RawOptions(width=22, height=14, packing="raw10", stride=31, pattern=BAYER)
        np.testing.assert_array_equal(read_raw(path, options).codes, good(ending).codes)


@pytest.mark.property
@settings(max_examples=60)
@given(
    st.binary(max_size=300),
    st.fixed_dictionaries(
        {
            "width": st.integers(-5, 1 << 40),
            "height": st.integers(-5, 1 << 40),
            "stride": st.one_of(st.none(), st.integers(-5, 1 << 40)),
            "bits": st.one_of(st.none(), st.integers(-3, 40)),
            "packing": st.sampled_from(("raw10", "raw12", "plain16", "plain16-msb", "plain8")),
        }
    ),
)
def test_geometries_that_cannot_be(content: bytes, geometry: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.raw"
        path.write_bytes(content)
        try:
            raw = read_raw(path, RawOptions(pattern=BAYER, **geometry))
            assert raw.size == (geometry["height"], geometry["width"])
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4), np.nan), "uint8 or uint16"),
        (np.full((4, 4), np.nan, dtype=np.float32), "uint8 or uint16"),
        (np.zeros((4, 4), dtype=np.int64), "uint8 or uint16"),
        (np.zeros((4, 4), dtype=object), "an array of NumPy"),
        (np.zeros((4, 4, 3), dtype=np.uint16), "one array"),
        (np.uint16(3), "one array"),
        (np.zeros((0, 4), dtype=np.uint16), "a header of 0x4"),
    ],
    ids=str,
)
def test_arrays_that_are_no_codes(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert message in refusal(tmp_path / "a.npy", RawOptions(pattern=BAYER))


def test_arrays_in_other_orders_are_read(tmp_path: Path) -> None:
    codes = capture("bayer").codes
    for stored in (codes.astype(">u2"), np.asfortranarray(codes), (codes >> 2).astype(np.uint8)):
        np.save(tmp_path / "a.npy", stored)
        found = read_raw(tmp_path / "a.npy", RawOptions(pattern=BAYER)).codes
        np.testing.assert_array_equal(found, stored)
        assert found.dtype == np.uint16


def test_the_wrong_byte_order_or_alignment_is_noticed(tmp_path: Path) -> None:
    codes = capture("bayer").codes
    said = RawOptions(width=22, height=14, bits=10, packing="plain16", pattern=BAYER)
    path = tmp_path / "a.raw"
    path.write_bytes(codes.astype(">u2").tobytes())
    assert "byte order" in refusal(path, said)
    path.write_bytes((codes << 6).astype("<u2").tobytes())
    assert "plain16-msb" in refusal(path, said)
    path.write_bytes(codes.astype("<u2").tobytes())
    assert "high end" in refusal(path, RawOptions(packing="plain16-msb").over(said))


@pytest.mark.parametrize(
    ("header", "extra"),
    [((0, 0), 0), ((65535, 65535), 8), ((4, 4), 31), ((4, 4), 33), ((4, 4), -1)],
)
def test_challenge_files_of_other_lengths(
    tmp_path: Path, header: tuple[int, int], extra: int
) -> None:
    content = struct.pack("<HH", *header) + bytes(max(extra, 0))
    (tmp_path / "a.bin").write_bytes(content if extra >= 0 else b"\1\0\1")
    assert "expected" in refusal(tmp_path / "a.bin")


def test_lengths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(100))
    said = RawOptions(width=10, height=5, packing="plain16", bits=10, pattern=BAYER)
    assert read_raw(path, said).size == (5, 10)
    for change in ({"width": 9}, {"height": 4}, {"packing": "raw10"}, {"stride": 25}):
        assert "correct --width" in refusal(path, RawOptions(**change).over(said))  # pyright: ignore[reportArgumentType]
    assert "at least 20 bytes" in refusal(path, RawOptions(stride=10).over(said))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.raw"])
def test_files_that_do_not_say_what_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(100))
    assert "--width" in refusal(tmp_path / name) or "no header" in refusal(tmp_path / name)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "found nothing" in refusal(tmp_path / "a.dng")
    (tmp_path / "b.dng").mkdir()
    assert "directory" in refusal(tmp_path / "b.dng")
