from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from method_kit import assert_no_slice_is_worse, axes, errors, formats, random_rows, weights
from torch import Tensor

from quantisp.quantization import IntFormat, QuantizedWeight, Rounding
from quantisp.quantization.methods.mse import as_rows, minimise_squared_error, of_shape
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import ROUNDINGS


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
    found = assert_no_slice_is_worse(minimise_squared_error, weight, int_format, axis, rounding)
    assert int_format.qmin <= int(found.codes.min()) <= int(found.codes.max()) <= int_format.qmax


@pytest.mark.unit
def test_the_comparison_with_round_to_nearest_can_fail():
    weight, int_format = random_rows(1, 64), IntFormat(bits=8)
    rounded = errors(weight, round_to_nearest(weight, int_format, "half_even", None))
    assert float(errors(weight, clip_halfway(weight, int_format, "half_even"))) > 2 * float(rounded)


@pytest.mark.unit
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_rows_come_back_in_their_shape(axis: int | None):
    tensor = torch.arange(120).reshape(2, 3, 4, 5)
    assert torch.equal(of_shape(as_rows(tensor, axis), tensor, axis), tensor)
