from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from method_kit import WIDTHS, assert_no_slice_is_worse, axes, errors, formats, random_rows, weights
from torch import Tensor

from quantisp.quantization import IntFormat, Rounding
from quantisp.quantization.methods.bit_split import split_bits, stitch, sweep_digits
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import ROUNDINGS


def reference(row: list[float], bits: int) -> tuple[list[int], float]:
    """The paper's alternation, in plain numbers: every digit tries each of its three values."""
    qmax = 2 ** (bits - 1) - 1
    scale = max(abs(w) for w in row) / qmax
    codes = [round(w / scale) for w in row]
    for _ in range(50):
        scale = sum(w * q for w, q in zip(row, codes, strict=True)) / sum(q * q for q in codes)
        digits = [[0] * (bits - 1) for _ in row]
        for m in reversed(range(bits - 1)):
            for w, of_code in zip(row, digits, strict=True):
                others = sum(d << place for place, d in enumerate(of_code) if place != m)
                of_code[m] = min((-1, 0, 1), key=lambda d: abs(w - scale * (others + d * 2**m)))
        last, codes = codes, [sum(d << m for m, d in enumerate(of_code)) for of_code in digits]
        if codes == last:
            break
    return codes, scale


@pytest.mark.reference
@pytest.mark.parametrize("columns", [25, 100])
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_codes_are_those_of_the_plain_alternation(bits: int, columns: int):
    weight = random_rows(12, columns)
    found = split_bits(weight, IntFormat(bits=bits), "half_even", 0)
    moved = 0
    for row, codes, scale in zip(weight, found.codes.tolist(), found.scale.tolist(), strict=True):
        expected, expected_scale = reference(row.tolist(), bits)
        assert codes == expected
        assert scale == pytest.approx(expected_scale, rel=1e-5)
        nearest = round_to_nearest(row, IntFormat(bits=bits), "half_even", None)
        moved += codes != nearest.codes.tolist()
    assert moved > 0  # so that codes of the start would not have passed


@pytest.mark.unit
@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_a_sweep_finds_the_nearest_code(bits: int):
    qmax = IntFormat(bits=bits).qmax
    quotients = torch.linspace(-qmax - 1.0, qmax + 1.0, 801).reshape(1, -1)
    digits = sweep_digits(quotients, bits - 1, "half_even")
    assert int(digits.abs().max()) == 1
    distance = (stitch(digits) - quotients).abs()
    nearest = (quotients.round().clamp(-qmax, qmax) - quotients).abs()
    assert torch.equal(distance, nearest)


@pytest.mark.unit
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_code_comes_back_from_its_digits(bits: int):
    qmax = IntFormat(bits=bits).qmax
    codes = torch.arange(-qmax, qmax + 1, dtype=torch.int32).reshape(1, -1)
    digits = sweep_digits(codes.double(), bits - 1, "half_even")
    assert digits.shape == (bits - 1, 1, 2 * qmax + 1)
    assert torch.equal(stitch(digits), codes)


@pytest.mark.reference
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_it_ends_where_rounding_and_scale_in_turn_do(bits: int):
    """What the docstring says of the form without data."""
    weight, int_format = random_rows(16, 144), IntFormat(bits=bits)
    rows, qmax = weight.double(), int_format.qmax
    codes = (rows / (rows.abs().amax(dim=1, keepdim=True) / qmax)).round()
    for _ in range(50):
        scale = (rows * codes).sum(1, keepdim=True) / codes.square().sum(1, keepdim=True)
        codes = (rows / scale).round().clamp(-qmax, qmax)
    found = errors(weight, split_bits(weight, int_format, "half_even", 0))
    torch.testing.assert_close(found, (codes * scale - rows).square().sum(1), rtol=1e-4, atol=0.0)


@pytest.mark.unit
def test_digits_of_one_code_may_differ_in_sign():
    assert stitch(torch.tensor([[[-1]], [[0]], [[1]]])).tolist() == [[3]]


@pytest.mark.unit
@pytest.mark.parametrize(("bits", "share"), [(2, 0.5), (3, 0.8), (4, 0.95), (8, 0.999)])
def test_error_falls_below_that_of_round_to_nearest(bits: int, share: float):
    weight, int_format = random_rows(16, 864), IntFormat(bits=bits)
    found = errors(weight, split_bits(weight, int_format, "half_even", 0))
    rounded = errors(weight, round_to_nearest(weight, int_format, "half_even", 0))
    assert float(found.sum()) < share * float(rounded.sum())


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS))
def test_no_slice_is_worse_than_round_to_nearest(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding
):
    found = assert_no_slice_is_worse(split_bits, weight, int_format, axis, rounding)
    assert int(found.codes.abs().max()) <= int_format.qmax
