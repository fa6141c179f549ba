"""Captures that tests of raw files share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantisp.cfa import CFAPattern
from quantisp.cfa.raw import RawOptions, read_raw
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import InputError

MATRIX = np.array([[0.8, -0.2, -0.1], [-0.4, 1.2, 0.2], [-0.1, 0.2, 0.6], [0.1, 0.4, 0.25]])


def capture(
    cfa: str = "rgbw-kodak", *, bits: int = 10, size: tuple[int, int] = (14, 22)
) -> RawImage:
    """Noise in every bit, another black level at each position, and everything that can be said."""
    pattern = CFAPattern.named(cfa)
    positions = pattern.period[0] * pattern.period[1]
    codes = np.random.default_rng(1).integers(0, 1 << bits, size, dtype=np.uint16)
    codes.flat[:2] = (0, (1 << bits) - 1)
    planes = 3 + ("W" in pattern.letters)
    return RawImage(
        codes=codes,
        pattern=pattern,
        black=tuple(
            (10.0 + position % 7 / 4) * (1 << bits) / 1024 for position in range(positions)
        ),
        white=float((1 << bits) - 1),
        bits=bits,
        as_shot_neutral=(0.5, 1.0, 0.625),
        color_matrix=MATRIX[:planes],
        orientation=6,
        noise_profile=((0.00025, 0.000002),),
        metadata={"camera": "test \u2603", "iso": "100"},
    )


def plain(raw: RawImage) -> RawImage:
    """With what a file without a description can say."""
    return replace(
        raw,
        as_shot_neutral=None,
        color_matrix=None,
        orientation=1,
        noise_profile=None,
        metadata={},
    )


def assert_equal(found: RawImage, expected: RawImage) -> None:
    assert found.codes.dtype == np.uint16
    assert type(found.codes) is np.ndarray
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert found.pattern == expected.pattern
    for name in (
        *("black", "white", "bits", "as_shot_neutral", "orientation", "noise_profile"),
        "metadata",
    ):
        assert getattr(found, name) == getattr(expected, name), name
    if expected.color_matrix is None:
        assert found.color_matrix is None
    else:
        assert found.color_matrix is not None
        np.testing.assert_allclose(found.color_matrix, expected.color_matrix, rtol=1e-9)


def refusal(path: Path, options: RawOptions | None = None) -> str:
    """The one line that reading ends in."""
    with pytest.raises(InputError) as caught:
        read_raw(path, options)
    message = str(caught.value)
    assert "\n" not in message
    return message
