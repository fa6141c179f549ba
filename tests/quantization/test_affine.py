from __future__ import annotations

from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from quantisp.errors import ModelError, SettingError
from quantisp.quantization import (
    IntFormat,
    Rounding,
    dequantize_tensor,
    quantize_tensor,
    round_scalar,
    weight_scale,
)
from quantisp.quantization.rounding import ROUNDINGS

WIDTHS = range(2, 17)
EXPONENTS = st.integers(-30, 30)


def clamp(value: int, int_format: IntFormat) -> int:
    return min(max(value, int_format.qmin), int_format.qmax)


@pytest.mark.unit
@pytest.mark.parametrize("narrow_range", [True, False])
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_code_comes_back(bits: int, narrow_range: bool):
    int_format = IntFormat(bits=bits, narrow_range=narrow_range)
    codes = torch.arange(int_format.qmin, int_format.qmax + 1, dtype=torch.int32)
    for scale in (torch.tensor(0.0123), torch.tensor(1 / 3), torch.tensor(7e5)):
        values = dequantize_tensor(codes, scale)
        assert torch.equal(quantize_tensor(values, scale, int_format, "half_even"), codes)


@pytest.mark.unit
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("narrow_range", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_everything_between_the_codes_follows_the_specification(
    bits: int, narrow_range: bool, rounding: Rounding
):
    int_format = IntFormat(bits=bits, narrow_range=narrow_range)
    eighths = range(8 * (int_format.qmin - 2), 8 * (int_format.qmax + 2) + 1)
    scale = torch.tensor(2.0**-5)  # every quotient is exact
    values = torch.tensor([n / 8 for n in eighths]) * scale
    expected = [clamp(round_scalar(Fraction(n, 8), rounding), int_format) for n in eighths]
    assert quantize_tensor(values, scale, int_format, rounding).tolist() == expected


@pytest.mark.unit
@pytest.mark.parametrize("bits", WIDTHS)
def test_largest_magnitude_gets_the_end_of_the_range(bits: int):
    generator = torch.Generator().manual_seed(bits)
    largest = torch.rand(4096, 1, generator=generator) * torch.logspace(-30, 30, 4096).unsqueeze(1)
    weight = torch.cat([largest, -largest], dim=1)
    for narrow_range in (True, False):
        int_format = IntFormat(bits=bits, narrow_range=narrow_range)
        scale = weight_scale(weight, int_format, axis=0)
        codes = quantize_tensor(weight, scale, int_format, "half_even", axis=0)
        # Not even the full range uses its extra code: the scale divides by qmax in both.
        ends = torch.tensor([int_format.qmax, -int_format.qmax], dtype=torch.int32)
        assert torch.equal(codes, ends.expand(4096, 2))


@pytest.mark.unit
def test_zeros_have_a_scale_of_one():
    weight = torch.tensor([[0.0, 0.0], [0.0, -3.5]])
    int_format = IntFormat(bits=4)
    assert weight_scale(torch.zeros(2, 2), int_format) == 1.0
    scale = weight_scale(weight, int_format, axis=0)
    assert scale.tolist() == [1.0, 0.5]
    codes = quantize_tensor(weight, scale, int_format, "half_even", axis=0)
    assert codes.tolist() == [[0, 0], [0, -7]]


@pytest.mark.unit
def test_weights_too_small_for_a_normal_scale_stay_finite():
    weight = torch.tensor([1e-42, -1e-38, 3e-38])
    int_format = IntFormat(bits=16)
    scale = weight_scale(weight, int_format)
    codes = quantize_tensor(weight, scale, int_format, "half_even")
    assert codes.tolist() == [0, -1, 3]
    assert bool(torch.isfinite(dequantize_tensor(codes, scale)).all())


@pytest.mark.unit
@pytest.mark.parametrize(("bits", "one_in"), [(8, 100_000), (10, 50_000), (16, 2_000)])
def test_float32_rarely_differs_from_float64_and_by_one_at_most(bits: int, one_in: int):
    weight = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    int_format = IntFormat(bits=bits)
    codes = quantize_tensor(weight, weight_scale(weight, int_format), int_format, "half_even")
    exact = weight.double()
    reference = quantize_tensor(exact, weight_scale(exact, int_format), int_format, "half_even")
    difference = (codes - reference).abs()
    assert int(difference.max()) <= 1
    assert int(difference.sum()) <= len(weight) // one_in


@pytest.mark.unit
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_must_be_finite(value: float):
    with pytest.raises(ModelError, match="expected finite weights"):
        weight_scale(torch.tensor([1.0, value]), IntFormat(bits=8))


@pytest.mark.unit
@pytest.mark.parametrize(("shape", "axis"), [((3,), None), ((), 0), ((2,), 1), ((1,), None)])
def test_scale_must_fit_the_axis(shape: tuple[int, ...], axis: int | None):
    with pytest.raises(SettingError, match="expected a scale of shape"):
        quantize_tensor(torch.ones(2, 3), torch.ones(shape), IntFormat(bits=8), "half_even", axis)


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    rows = draw(st.integers(1, 4))
    row = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)
    values = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))
    values = torch.where(values.abs() < 2.0**-60, 0.0, values)
    return values * 2.0 ** draw(EXPONENTS)


formats = st.builds(IntFormat, bits=st.sampled_from(WIDTHS), narrow_range=st.booleans())
axes = st.sampled_from([None, 0, 1])


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS))
def test_error_is_at_most_half_a_step(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding
):
    scale = weight_scale(weight, int_format, axis)
    codes = quantize_tensor(weight, scale, int_format, rounding, axis)
    error = (dequantize_tensor(codes, scale, axis).double() - weight.double()).abs()
    # Half a step, and the float32 errors of quotient and product at the largest code.
    step = scale if axis is None else scale.reshape((-1, 1) if axis == 0 else (1, -1))
    assert bool((error <= step.double() * (0.5 + int_format.qmax * 2.0**-23)).all())


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS))
def test_quantizing_again_changes_nothing(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding
):
    scale = weight_scale(weight, int_format, axis)
    codes = quantize_tensor(weight, scale, int_format, rounding, axis)
    again = quantize_tensor(
        dequantize_tensor(codes, scale, axis), scale, int_format, rounding, axis
    )
    assert torch.equal(codes, again)


@pytest.mark.property
@pytest.mark.parametrize("rounding", ["half_even", "half_away"])
@given(weights(), formats)
def test_codes_change_sign_with_the_weight(
    rounding: Rounding, weight: Tensor, int_format: IntFormat
):
    scale = weight_scale(weight, int_format)
    codes = quantize_tensor(weight, scale, int_format, rounding)
    assert torch.equal(quantize_tensor(-weight, scale, int_format, rounding), -codes)


@pytest.mark.unit
def test_half_up_does_not_change_sign_with_the_weight():
    half, scale = torch.tensor([0.5, -0.5]), torch.tensor(1.0)
    assert quantize_tensor(half, scale, IntFormat(bits=4), "half_up").tolist() == [1, 0]


@pytest.mark.property
@given(weights(), formats, st.sampled_from(ROUNDINGS))
def test_codes_rise_with_the_weight(weight: Tensor, int_format: IntFormat, rounding: Rounding):
    ordered = weight.flatten().sort().values
    codes = quantize_tensor(ordered, weight_scale(ordered, int_format), int_format, rounding)
    assert bool((codes.diff() >= 0).all())
