"""Weights and formats that every rounding method is tried on."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from torch import Tensor

from quantisp.quantization import IntFormat, LayerMethod, QuantizedWeight, Rounding
from quantisp.quantization.methods.rtn import round_to_nearest

WIDTHS = range(2, 17)


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """One to four rows of three weights, of any size that float32 holds well, or zero."""
    rows = draw(st.integers(1, 4))
    row = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)
    values = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows)))
    values = torch.where(values.abs() < 2.0**-60, 0.0, values)
    return values * 2.0 ** draw(st.integers(-30, 30))


formats = st.builds(IntFormat, bits=st.sampled_from(WIDTHS), narrow_range=st.booleans())
axes = st.sampled_from([None, 0, 1])


def random_rows(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


def as_slices(tensor: Tensor, axis: int | None) -> Tensor:
    """One row for each scale."""
    return tensor.reshape(1, -1) if axis is None else tensor.transpose(0, axis).flatten(1)


def errors(weight: Tensor, found: QuantizedWeight) -> Tensor:
    """The squared error of each slice."""
    apart = found.dequantize().double() - weight.double()
    return as_slices(apart, found.axis).square().sum(dim=1)


def assert_no_slice_is_worse(
    method: LayerMethod, weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding
) -> QuantizedWeight:
    """Than by rounding to nearest; the weight is not changed, and shapes are as they should be."""
    before = weight.clone()
    found = method(weight, int_format, rounding, axis)
    assert torch.equal(weight, before)
    rounded = errors(weight, round_to_nearest(weight, int_format, rounding, axis))
    assert bool((errors(weight, found) <= rounded * (1 + 1e-12)).all())
    assert found.codes.shape == weight.shape
    assert found.codes.dtype == torch.int32
    assert found.scale.dtype == torch.float32
    assert found.scale.shape == (() if axis is None else (weight.shape[axis],))
    assert bool((found.scale > 0).all())
    return found
