from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization import IntFormat, QuantizedWeight, Rounding
from quantisp.quantization.methods.bit_split import split_bits, stitch, sweep_digits
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import ROUNDINGS

WIDTHS = range(2, 17)


def errors(weight: Tensor, found: QuantizedWeight) -> Tensor:
    """The squared error of each slice."""
    apart = found.dequantize().double() - weight.double()
    rows = apart.reshape(1, -1) if found.axis is None else apart.transpose(0, found.axis).flatten(1)
    return rows.square().sum(dim=1)


def random_rows(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


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


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    rows = draw(st.integers(1, 4))
    row = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)
    values = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))
    values = torch.where(values.abs() < 2.0**-60, 0.0, values)
    return values * 2.0 ** draw(st.integers(-30, 30))


formats = st.builds(IntFormat, bits=st.sampled_from(WIDTHS), narrow_range=st.booleans())
axes = st.sampled_from([None, 0, 1])


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
    before = weight.clone()
    found = split_bits(weight, int_format, rounding, axis)
    assert torch.equal(weight, before)
    rounded = errors(weight, round_to_nearest(weight, int_format, rounding, axis))
    assert bool((errors(weight, found) <= rounded * (1 + 1e-12)).all())
    assert found.codes.shape == weight.shape
    assert found.codes.dtype == torch.int32
    assert found.scale.dtype == torch.float32
    assert found.scale.shape == (() if axis is None else (weight.shape[axis],))
    assert bool((found.scale > 0).all())
    assert int(found.codes.abs().max()) <= int_format.qmax


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS), st.integers(-20, 20))
def test_a_power_of_two_changes_the_scale_alone(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding, exponent: int
):
    found = split_bits(weight, int_format, rounding, axis)
    again = split_bits(weight * 2.0**exponent, int_format, rounding, axis)
    assert torch.equal(found.codes, again.codes)
    rows = weight.reshape(1, -1) if axis is None else weight.transpose(0, axis).flatten(1)
    zeros = (rows.abs().amax(dim=1) == 0).reshape(found.scale.shape)
    assert torch.equal(again.scale, torch.where(zeros, 1.0, found.scale * 2.0**exponent))


@pytest.mark.property
@pytest.mark.parametrize("rounding", ["half_even", "half_away"])
@given(weights(), st.sampled_from(WIDTHS), axes)
def test_codes_change_sign_with_the_weight(
    rounding: Rounding, weight: Tensor, bits: int, axis: int | None
):
    found = split_bits(weight, IntFormat(bits=bits), rounding, axis)
    mirrored = split_bits(-weight, IntFormat(bits=bits), rounding, axis)
    assert torch.equal(mirrored.codes, -found.codes)
    assert torch.equal(mirrored.scale, found.scale)


@pytest.mark.unit
@pytest.mark.parametrize("bits", WIDTHS)
def test_zeros_constants_and_single_weights(bits: int):
    weight = torch.tensor([[0.0, 0.0], [-0.3, -0.3], [0.7, 0.7]]).reshape(3, 2, 1, 1)
    for rows in (weight, weight[:, :1]):
        found = split_bits(rows, IntFormat(bits=bits), "half_even", 0)
        assert found.scale[0] == 1.0
        assert not bool(found.codes[0].any())
        torch.testing.assert_close(found.dequantize(), rows, rtol=1e-6, atol=0.0)
    zeros = split_bits(torch.zeros(2, 3), IntFormat(bits=bits), "half_even", None)
    assert zeros.scale == 1.0
    assert not bool(zeros.codes.any())


@pytest.mark.unit
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("value", [3.4e38, 1e-38, 1e-44])
def test_weights_at_the_ends_of_float32_stay_finite(value: float, bits: int):
    weight = value * torch.tensor([[1.0, -0.7, 0.4, 0.1]])
    found = split_bits(weight, IntFormat(bits=bits), "half_even", 0)
    rounded = round_to_nearest(weight, IntFormat(bits=bits), "half_even", 0)
    assert bool(torch.isfinite(found.dequantize()).all())
    assert float(errors(weight, found)) <= float(errors(weight, rounded))


@pytest.mark.unit
def test_axis_of_a_transposed_convolution():
    weight = random_rows(24, 4).reshape(6, 4, 2, 2)
    found = split_bits(weight, IntFormat(bits=4), "half_even", 1)
    turned = split_bits(weight.transpose(0, 1), IntFormat(bits=4), "half_even", 0)
    assert torch.equal(found.codes, turned.codes.transpose(0, 1))
    assert torch.equal(found.scale, turned.scale)
    assert found.codes.is_contiguous()
    for channel in range(4):
        alone = split_bits(weight[:, channel], IntFormat(bits=4), "half_even", None)
        assert torch.equal(alone.codes, found.codes[:, channel])


@pytest.mark.unit
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_must_be_finite(value: float):
    with pytest.raises(ModelError, match="expected finite weights"):
        split_bits(torch.tensor([[1.0, value]]), IntFormat(bits=8), "half_even", 0)
