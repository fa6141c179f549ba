from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from method_kit import WIDTHS, as_slices, axes, formats, weights
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import erf
from torch import Tensor

from quantisp.quantization import IntFormat, Rounding, weight_scale
from quantisp.quantization.methods.aciq import clip_analytically, gauss_clipping, laplace_clipping
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import ROUNDINGS

# alpha* / b and alpha* / sigma for 2 to 8 bits, as in the authors' published code.
LAPLACE = (2.83068299, 3.89722946, 5.02864014, 6.20476633, 7.41312622, 8.64561995, 9.89675982)
GAUSS = (1.71063519, 2.15159277, 2.55913646, 2.93620062, 3.28691474, 3.6151146, 3.92403714)


def laplace_error(alpha: float, intervals: int) -> float:
    return 2 * math.exp(-alpha) + alpha**2 / (3 * intervals**2)


def gauss_error(alpha: float, intervals: int) -> float:
    clipped = (alpha**2 + 1) * (1 - erf(alpha / math.sqrt(2)))
    clipped -= math.sqrt(2 / math.pi) * alpha * math.exp(-(alpha**2) / 2)
    return clipped + alpha**2 / (3 * intervals**2)


def laplace(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    u = torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 0.5
    return (-u.sign() * torch.log1p(-2 * u.abs())).float()


def gauss(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))


@pytest.mark.reference
@pytest.mark.parametrize("bits", range(2, 9))
def test_clipping_values_are_the_published_ones(bits: int):
    assert laplace_clipping(2**bits) == pytest.approx(LAPLACE[bits - 2], abs=1e-5)
    assert gauss_clipping(2**bits) == pytest.approx(GAUSS[bits - 2], abs=1e-5)
    # The intervals of our own codes are fewer, so that more is clipped.
    ours = 2 * IntFormat(bits=bits).qmax
    assert laplace_clipping(ours) < LAPLACE[bits - 2] - 1e-2
    assert gauss_clipping(ours) < GAUSS[bits - 2] - 1e-3


@pytest.mark.reference
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(
    ("clipping", "error"),
    [(laplace_clipping, laplace_error), (gauss_clipping, gauss_error)],
    ids=["laplace", "gauss"],
)
def test_clipping_values_minimise_the_formula(bits: int, clipping, error):
    intervals = 2 * IntFormat(bits=bits).qmax
    best = minimize_scalar(
        error, bounds=(0.1, 40.0), args=(intervals,), method="bounded", options={"xatol": 1e-9}
    )
    # Flat at its minimum: the formula in float64 tells alpha to few digits.
    assert clipping(intervals) == pytest.approx(best.x, rel=2e-3)
    least = error(clipping(intervals), intervals)
    assert least <= best.fun * (1 + 1e-6)
    assert least < min(error(f * clipping(intervals), intervals) for f in (0.95, 1.05))


@pytest.mark.reference
@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("sample", [laplace, gauss])
def test_error_of_samples_is_near_the_least_of_any_clipping(bits: int, sample):
    """The formula against the quantizer itself, over a dense search."""
    weight, int_format = sample(1, 200_000), IntFormat(bits=bits)
    found = clip_analytically(weight, int_format, "half_even", None)
    error = float((found.dequantize() - weight).square().mean())
    searched: list[float] = []
    for share in torch.linspace(0.05, 1.0, 120):
        scale = weight_scale(weight, int_format) * share
        codes = (weight / scale).round().clamp(-int_format.qmax, int_format.qmax)
        searched.append(float((codes * scale - weight).square().mean()))
    assert error <= 1.05 * min(searched)
    clipping, spread, expected = (
        (laplace_clipping, weight.abs().mean(), laplace_error)
        if sample is laplace
        else (gauss_clipping, weight.square().mean().sqrt(), gauss_error)
    )
    alpha = clipping(2 * int_format.qmax)
    assert float(found.scale) == pytest.approx(float(spread * alpha / int_format.qmax), rel=1e-5)
    # Rounding is not quite uniform under a steep density, and the tail of a sample is short.
    assert error == pytest.approx(expected(alpha, 2 * int_format.qmax), rel=0.15)
    assert searched[-1] > 1.15 * error


@pytest.mark.unit
def test_each_slice_has_the_likelier_prior():
    weight = torch.cat([laplace(8, 4096), gauss(8, 4096)])
    int_format = IntFormat(bits=4)
    alpha = clip_analytically(weight, int_format, "half_even", 0).scale.double() * int_format.qmax
    b = weight.double().abs().mean(dim=1) * laplace_clipping(14)
    sigma = weight.double().square().mean(dim=1).sqrt() * gauss_clipping(14)
    torch.testing.assert_close(alpha, torch.cat([b[:8], sigma[8:]]), rtol=1e-6, atol=0.0)
    assert bool(((b - sigma).abs() > 0.1).all())


@pytest.mark.reference
def test_the_likelier_prior_is_that_of_scipy():
    """Rows from Gauss to beyond Laplace, on both sides of the change by little."""
    half = torch.from_numpy(stats.norm.ppf([0.5 + (i + 0.5) / 8000 for i in range(4000)]))
    weight = torch.stack([half**p for p in torch.linspace(1.0, 1.5, 41)]).float()
    scale = clip_analytically(weight, IntFormat(bits=4), "half_even", 0).scale
    chosen: list[bool] = []
    for row, found in zip(weight.double(), scale.tolist(), strict=True):
        b, sigma = float(row.abs().mean()), float(row.square().mean().sqrt())
        of_laplace = stats.laplace.logpdf(row, scale=b).sum()
        of_gauss = stats.norm.logpdf(row, scale=sigma).sum()
        chosen.append(bool(of_laplace > of_gauss))
        alpha = b * laplace_clipping(14) if chosen[-1] else sigma * gauss_clipping(14)
        assert found == pytest.approx(alpha / 7, rel=1e-6)
    assert 5 < sum(chosen) < 36


@pytest.mark.property
@given(weights(), formats, axes, st.sampled_from(ROUNDINGS), st.integers(-20, 20))
def test_a_power_of_two_changes_the_scale_alone(
    weight: Tensor, int_format: IntFormat, axis: int | None, rounding: Rounding, exponent: int
):
    before = weight.clone()
    found = clip_analytically(weight, int_format, rounding, axis)
    again = clip_analytically(weight * 2.0**exponent, int_format, rounding, axis)
    assert torch.equal(weight, before)
    assert torch.equal(found.codes, again.codes)
    assert found.codes.dtype == torch.int32
    assert found.scale.dtype == torch.float32
    assert found.scale.shape == (() if axis is None else (weight.shape[axis],))
    assert int_format.qmin <= int(found.codes.min()) <= int(found.codes.max()) <= int_format.qmax
    widest = weight_scale(weight, int_format, axis)
    assert bool((found.scale <= widest).all())
    if bool((as_slices(weight, axis) != 0).any(dim=1).all()):
        assert torch.equal(again.scale, found.scale * 2.0**exponent)


@pytest.mark.unit
@pytest.mark.parametrize("bits", WIDTHS)
def test_zeros_constants_and_single_weights(bits: int):
    weight = torch.tensor([[0.0, 0.0], [-0.3, -0.3], [0.7, 0.7]]).reshape(3, 2, 1, 1)
    for rows in (weight, weight[:, :1]):
        found = clip_analytically(rows, IntFormat(bits=bits), "half_even", 0)
        assert found.scale[0] == 1.0
        # Equal magnitudes have no tail: alpha is beyond them, and so the absolute maximum.
        rounded = round_to_nearest(rows, IntFormat(bits=bits), "half_even", 0)
        assert torch.equal(found.scale, rounded.scale)
        assert torch.equal(found.codes, rounded.codes)
    zeros = clip_analytically(torch.zeros(2, 3), IntFormat(bits=bits), "half_even", None)
    assert zeros.scale == 1.0
    assert not bool(zeros.codes.any())


@pytest.mark.unit
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("value", [3.4e38, 1e-38, 1e-44])
def test_weights_at_the_ends_of_float32_stay_finite(value: float, bits: int):
    weight = value * torch.tensor([[1.0, -0.7, 0.4, 0.1]])
    found = clip_analytically(weight, IntFormat(bits=bits), "half_even", 0)
    assert bool(torch.isfinite(found.dequantize()).all())
    assert bool((found.scale > 0).all())


@pytest.mark.unit
def test_axis_of_a_transposed_convolution():
    weight = laplace(24, 4).reshape(6, 4, 2, 2)
    found = clip_analytically(weight, IntFormat(bits=4), "half_even", 1)
    for channel in range(4):
        alone = clip_analytically(weight[:, channel], IntFormat(bits=4), "half_even", None)
        assert torch.equal(alone.codes, found.codes[:, channel])
    whole = clip_analytically(weight, IntFormat(bits=4), "half_even", None)
    assert not torch.equal(whole.codes, found.codes)
