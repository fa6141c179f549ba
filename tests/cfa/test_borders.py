from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantisp.cfa import extend_in_phase, mirror_in_phase

pytestmark = pytest.mark.property


@given(position=st.integers(-40, 80), size=st.integers(1, 40), period=st.integers(1, 8))
def test_what_stands_in_for_a_pixel_has_its_phase(position: int, size: int, period: int):
    size = max(size, period)
    source = mirror_in_phase(position, size, period)
    assert 0 <= source < size
    assert (source - position) % period == 0
    if 0 <= position < size:
        assert source == position


def test_a_2x2_tile_is_mirrored_as_numpy_mirrors_it():
    picture = torch.arange(48.0).reshape(1, 1, 6, 8)
    ours = extend_in_phase(picture, before=(4, 3), after=(2, 5), period=(2, 2))
    theirs = np.pad(picture[0, 0].numpy(), ((4, 2), (3, 5)), mode="reflect")
    assert np.array_equal(ours[0, 0].numpy(), theirs)


def test_no_pixel_of_the_phase_is_nearer_to_the_mirror_image():
    for position in range(-9, 0):
        source = mirror_in_phase(position, 23, 4)
        others = [p for p in range(23) if (p - position) % 4 == 0]
        assert abs(source + position) == min(abs(p + position) for p in others)
