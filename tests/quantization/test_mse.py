from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization import IntFormat, QuantizedWeight, Rounding
from quantisp.quantization.methods.mse import as_rows, minimise_squared_error, of_shape
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import ROUNDINGS

WIDTHS = range(2, 17)


def errors(weight: Tensor, found: QuantizedWeight) -> Tensor:
    """The squared error of each slice."""
    apart = found.dequantize().double() - weight.double()
    return as_rows(apart, found.axis).square().sum(dim=1)


def least_error(row: Tensor, int_format: IntFormat) -> float:
    """The least squared error of any scale, by going through every change of a code.

    As the scale falls, the code of w goes from k - 1 to k in magnitude where w / scale = k - 1/2.
    Between two such changes all codes are fixed, and the best scale has a closed form.
    """
    changes: list[tuple[float, float, int]] = []
    for value in row.tolist():
        limit = int_format.qmax if value > 0 else -int_format.qmin
        changes += [(abs(value) / (k - 0.5), abs(value), 2 * k - 1) for k in range(1, limit + 1)]
    seen, power, explained = 0.0, 0, 0.0
    for at, magnitude, growth in sorted(changes, reverse=True):
        if at > 0:
            seen, power = seen + magnitude, power + growth
            explained = max(explained, seen**2 / power)
    return float(row.double().square().sum()) - explained


def clip_halfway(weight: Tensor, int_format: IntFormat, rounding: Rounding) -> QuantizedWeight:
    """A method that is often worse than rounding to nearest."""
    return round_to_nearest(weight.clamp(-0.5, 0.5), int_format, rounding, None)


def random_rows(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


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
@pytest.mark.parametrize("narrow_range", [True, False])
@pytest.mark.parametrize("columns", [3, 9, 25, 144])
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_error_is_the_least_of_all_scales(bits: int, columns: int, narrow_range: bool):
    weight, int_format = random_rows(24, columns), IntFormat(bits=bits, narrow_range=narrow_range)
    found = errors(weight, minimise_squared_error(weight, int_format, "half_even", 0))
    least = torch.tensor([least_error(row, int_format) for row in weight], dtype=torch.float64)
    power = weight.double().square().sum(dim=1)
    assert bool((found >= least - 1e-6 * power).all())
    # The grid may miss a narrow minimum, in few rows and by little.
    assert float(found.sum()) <= 1.0005 * float(least.sum()) + 1e-6
    assert bool((found <= 1.005 * least + 1e-6 * power).all())
    rounded = errors(weight, round_to_nearest(weight, int_format, "half_even", 0))
    assert float(rounded.sum()) > 1.05 * float(least.sum())


@pytest.mark.reference
def test_the_reference_agrees_with_a_dense_search():
    row, int_format = random_rows(1, 7)[0], IntFormat(bits=3)
    scales = torch.linspace(0.01, 2.0, 200_000, dtype=torch.float64)[:, None]
    codes = (row.double() / scales).round().clamp(-3, 3)
    dense = float((codes * scales - row.double()).square().sum(dim=1).min())
    assert least_error(row, int_format) == pytest.approx(dense, rel=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("bits", [6, 8, 10, 12, 16])
def test_wide_codes_gain_too(bits: int):
    weight = random_rows(16, 864)
    int_format = IntFormat(bits=bits)
    found = errors(weight, minimise_squared_error(weight, int_format, "half_even", 0))
    rounded = errors(weight, round_to_nearest(weight, int_format, "half_even", 0))
    assert bool((found <= rounded).all())
    assert float(found.sum()) < 0.98 * float(rounded.sum())


@pytest.mark.unit
@pytest.mark.parametrize("bits", [2, 4])
def test_a_far_outlier_is_clipped(bits: int):
    weight = random_rows(1, 100_000)
    weight[0, 0] = 60.0
    found = minimise_squared_error(weight, IntFormat(bits=bits), "half_even", None)
    rounded = round_to_nearest(weight, IntFormat(bits=bits), "half_even", None)
    assert float(errors(weight, found)) < 0.3 * float(errors(weight, rounded))


@pytest.mark.unit
def test_weights_on_a_coarser_grid_are_met():
    weight = 0.37 * torch.tensor([[5.0, -3.0, 1.0, 0.0, 4.0, -2.0]])
    int_format = IntFormat(bits=4)
    found = minimise_squared_error(weight, int_format, "half_even", 0)
    assert found.codes.tolist() == [[5, -3, 1, 0, 4, -2]]
    assert float(errors(weight, found)) < 1e-12
    assert float(errors(weight, round_to_nearest(weight, int_format, "half_even", 0))) > 1e-3


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS))
def test_no_slice_is_worse_than_round_to_nearest(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding
):
    before = weight.clone()
    found = minimise_squared_error(weight, int_format, rounding, axis)
    assert torch.equal(weight, before)
    rounded = errors(weight, round_to_nearest(weight, int_format, rounding, axis))
    assert bool((errors(weight, found) <= rounded * (1 + 1e-12)).all())
    assert found.codes.shape == weight.shape
    assert found.codes.dtype == torch.int32
    assert found.scale.dtype == torch.float32
    assert found.scale.shape == (() if axis is None else (weight.shape[axis],))
    assert bool((found.scale > 0).all())
    assert int_format.qmin <= int(found.codes.min()) <= int(found.codes.max()) <= int_format.qmax


@pytest.mark.unit
def test_the_comparison_with_round_to_nearest_can_fail():
    weight, int_format = random_rows(1, 64), IntFormat(bits=8)
    rounded = errors(weight, round_to_nearest(weight, int_format, "half_even", None))
    assert float(errors(weight, clip_halfway(weight, int_format, "half_even"))) > 2 * float(rounded)


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS), st.integers(-20, 20))
def test_a_power_of_two_changes_the_scale_alone(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding, exponent: int
):
    found = minimise_squared_error(weight, int_format, rounding, axis)
    again = minimise_squared_error(weight * 2.0**exponent, int_format, rounding, axis)
    assert torch.equal(found.codes, again.codes)
    zeros = as_rows(weight, axis).abs().amax(dim=1).reshape(found.scale.shape) == 0
    assert torch.equal(again.scale, torch.where(zeros, 1.0, found.scale * 2.0**exponent))


@pytest.mark.property
@pytest.mark.parametrize("rounding", ["half_even", "half_away"])
@given(weights(), st.sampled_from(WIDTHS), axes)
def test_codes_change_sign_with_the_weight(
    rounding: Rounding, weight: Tensor, bits: int, axis: int | None
):
    found = minimise_squared_error(weight, IntFormat(bits=bits), rounding, axis)
    mirrored = minimise_squared_error(-weight, IntFormat(bits=bits), rounding, axis)
    assert torch.equal(mirrored.codes, -found.codes)
    assert torch.equal(mirrored.scale, found.scale)


@pytest.mark.unit
@pytest.mark.parametrize("bits", WIDTHS)
def test_zeros_constants_and_single_weights(bits: int):
    weight = torch.tensor([[0.0, 0.0], [-0.3, -0.3], [0.7, 0.7]]).reshape(3, 2, 1, 1)
    for rows in (weight, weight[:, :1]):
        found = minimise_squared_error(rows, IntFormat(bits=bits), "half_even", 0)
        assert found.scale[0] == 1.0
        assert not bool(found.codes[0].any())
        torch.testing.assert_close(found.dequantize(), rows, rtol=1e-6, atol=0.0)
    zeros = minimise_squared_error(torch.zeros(2, 3), IntFormat(bits=bits), "half_even", None)
    assert zeros.scale == 1.0
    assert not bool(zeros.codes.any())


@pytest.mark.unit
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("value", [3.4e38, 1e-38, 1e-44])
def test_weights_at_the_ends_of_float32_stay_finite(value: float, bits: int):
    weight = value * torch.tensor([[1.0, -0.7, 0.4, 0.1]])
    found = minimise_squared_error(weight, IntFormat(bits=bits), "half_even", 0)
    rounded = round_to_nearest(weight, IntFormat(bits=bits), "half_even", 0)
    assert bool(torch.isfinite(found.dequantize()).all())
    assert float(errors(weight, found)) <= float(errors(weight, rounded))


@pytest.mark.unit
def test_axis_of_a_transposed_convolution():
    weight = random_rows(24, 4).reshape(6, 4, 2, 2)
    found = minimise_squared_error(weight, IntFormat(bits=4), "half_even", 1)
    turned = minimise_squared_error(weight.transpose(0, 1), IntFormat(bits=4), "half_even", 0)
    assert torch.equal(found.codes, turned.codes.transpose(0, 1))
    assert torch.equal(found.scale, turned.scale)
    assert found.codes.is_contiguous()
    for channel in range(4):
        alone = minimise_squared_error(weight[:, channel], IntFormat(bits=4), "half_even", None)
        assert torch.equal(alone.codes, found.codes[:, channel])


@pytest.mark.unit
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_rows_come_back_in_their_shape(axis: int | None):
    tensor = torch.arange(120).reshape(2, 3, 4, 5)
    assert torch.equal(of_shape(as_rows(tensor, axis), tensor, axis), tensor)


@pytest.mark.unit
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_must_be_finite(value: float):
    with pytest.raises(ModelError, match="expected finite weights"):
        minimise_squared_error(torch.tensor([[1.0, value]]), IntFormat(bits=8), "half_even", 0)
