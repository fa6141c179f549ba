"""The scalar specification and its twin on tensors, driven by the same vectors."""

from __future__ import annotations

from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from quantisp.errors import SettingError
from quantisp.quantization import Rounding, round_scalar, round_tensor
from quantisp.quantization.rounding import ROUNDINGS

BELOW_HALF_32 = 0.5 - 2.0**-25  # the float32 before 0.5

VECTORS: dict[Rounding, list[tuple[float, int]]] = {
    "half_even": [(-2.5, -2), (-1.5, -2), (-0.5, 0), (0.5, 0), (1.5, 2), (2.5, 2), (511.5, 512)],
    "half_up": [(-2.5, -2), (-1.5, -1), (-0.5, 0), (0.5, 1), (1.5, 2), (2.5, 3), (511.5, 512)],
    "half_away": [(-2.5, -3), (-1.5, -2), (-0.5, -1), (0.5, 1), (1.5, 2), (2.5, 3), (511.5, 512)],
}
EVERYWHERE = [
    *[(float(n), n) for n in (-32768, -3, 0, 1, 32767, 2**23 + 1)],
    *[(0.25, 0), (-0.25, 0), (0.75, 1), (-0.75, -1), (-1e-30, 0), (1e-30, 0)],
    *[(BELOW_HALF_32, 0), (-BELOW_HALF_32, 0), (4194303.25, 4194303), (-4194303.75, -4194304)],
]


@pytest.mark.unit
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_vectors_hold_for_both(rounding: Rounding):
    cases = [*VECTORS[rounding], *EVERYWHERE]
    values, expected = [x for x, _ in cases], [n for _, n in cases]
    assert [round_scalar(x, rounding) for x in values] == expected
    assert round_tensor(torch.tensor(values), rounding).tolist() == expected


@pytest.mark.unit
def test_adding_a_half_and_flooring_fails_these_vectors():
    x = torch.tensor(BELOW_HALF_32)
    assert torch.floor(x + 0.5) == 1.0
    assert round_tensor(x, "half_up") == 0.0


@pytest.mark.unit
def test_specification_takes_exact_fractions():
    third = Fraction(1, 3)
    assert [round_scalar(third * n, "half_even") for n in range(-3, 4)] == [-1, -1, 0, 0, 0, 1, 1]


@pytest.mark.property
@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(st.floats(-(2.0**24), 2.0**24, width=32) | st.integers(-9999, 9999).map(lambda n: n / 2))
def test_twins_agree(rounding: Rounding, x: float):
    expected = round_scalar(x, rounding)
    assert abs(Fraction(x) - expected) <= Fraction(1, 2)
    for dtype in (torch.float32, torch.float64):
        assert round_tensor(torch.tensor(x, dtype=dtype), rounding).item() == expected


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.unit
def test_no_such_rounding():
    with pytest.raises(SettingError, match="half_even, half_up, half_away, found 'up'"):
        round_tensor(torch.zeros(1), "up")
    with pytest.raises(SettingError, match="found 'up'"):
        round_scalar(0.5, "up")
