"""Laws of every method that looks at the weight alone."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from method_kit import WIDTHS, as_slices, axes, errors, formats, random_rows, weights
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization import METHODS, IntFormat, LayerMethod, Rounding
from quantisp.quantization.methods.bit_split import split_bits
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import ROUNDINGS

WEIGHT_ALONE = {**METHODS, "bit-split without data": split_bits}
every_method = pytest.mark.parametrize("method", WEIGHT_ALONE.values(), ids=WEIGHT_ALONE)
# ACIQ clips by a distribution: its error may be larger than that of rounding to nearest.
FITTING = {name: method for name, method in WEIGHT_ALONE.items() if name != "aciq"}
fitting_method = pytest.mark.parametrize("method", FITTING.values(), ids=FITTING)


@pytest.mark.property
@fitting_method
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS), st.integers(-20, 20))
def test_a_power_of_two_changes_the_scale_alone(
    method: LayerMethod,
    weight: Tensor,
    int_format: IntFormat,
    axis: int | None,
    rounding: Rounding,
    exponent: int,
):
    found = method(weight, int_format, rounding, axis)
    again = method(weight * 2.0**exponent, int_format, rounding, axis)
    assert torch.equal(found.codes, again.codes)
    zeros = (as_slices(weight, axis).abs().amax(dim=1) == 0).reshape(found.scale.shape)
    assert torch.equal(again.scale, torch.where(zeros, 1.0, found.scale * 2.0**exponent))


@pytest.mark.property
@every_method
@pytest.mark.parametrize("rounding", ["half_even", "half_away"])
@given(weights(), st.sampled_from(WIDTHS), axes)
def test_codes_change_sign_with_the_weight(
    method: LayerMethod, rounding: Rounding, weight: Tensor, bits: int, axis: int | None
):
    found = method(weight, IntFormat(bits=bits), rounding, axis)
    mirrored = method(-weight, IntFormat(bits=bits), rounding, axis)
    assert torch.equal(mirrored.codes, -found.codes)
    assert torch.equal(mirrored.scale, found.scale)


@pytest.mark.unit
@fitting_method
@pytest.mark.parametrize("bits", WIDTHS)
def test_zeros_constants_and_single_weights(method: LayerMethod, bits: int):
    weight = torch.tensor([[0.0, 0.0], [-0.3, -0.3], [0.7, 0.7]]).reshape(3, 2, 1, 1)
    for rows in (weight, weight[:, :1]):
        found = method(rows, IntFormat(bits=bits), "half_even", 0)
        assert found.scale[0] == 1.0
        assert not bool(found.codes[0].any())
        torch.testing.assert_close(found.dequantize(), rows, rtol=1e-6, atol=0.0)
    zeros = method(torch.zeros(2, 3), IntFormat(bits=bits), "half_even", None)
    assert zeros.scale == 1.0
    assert not bool(zeros.codes.any())


@pytest.mark.unit
@fitting_method
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("value", [3.4e38, 1e-38, 1e-44])
def test_weights_at_the_ends_of_float32_stay_finite(method: LayerMethod, value: float, bits: int):
    weight = value * torch.tensor([[1.0, -0.7, 0.4, 0.1]])
    found = method(weight, IntFormat(bits=bits), "half_even", 0)
    rounded = round_to_nearest(weight, IntFormat(bits=bits), "half_even", 0)
    assert bool(torch.isfinite(found.dequantize()).all())
    assert float(errors(weight, found)) <= float(errors(weight, rounded))


@pytest.mark.unit
@every_method
def test_axis_of_a_transposed_convolution(method: LayerMethod):
    weight = random_rows(24, 4).reshape(6, 4, 2, 2)
    found = method(weight, IntFormat(bits=4), "half_even", 1)
    turned = method(weight.transpose(0, 1), IntFormat(bits=4), "half_even", 0)
    assert torch.equal(found.codes, turned.codes.transpose(0, 1))
    assert torch.equal(found.scale, turned.scale)
    assert found.codes.is_contiguous()
    for channel in range(4):
        alone = method(weight[:, channel], IntFormat(bits=4), "half_even", None)
        assert torch.equal(alone.codes, found.codes[:, channel])


@pytest.mark.unit
@every_method
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_must_be_finite(method: LayerMethod, value: float):
    with pytest.raises(ModelError, match="expected finite weights"):
        method(torch.tensor([[1.0, value]]), IntFormat(bits=8), "half_even", 0)
