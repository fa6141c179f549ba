"""Bit-split and stitching against the paper's formulae in plain numbers, and its laws."""

from __future__ import annotations

import functools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from method_kit import WIDTHS, assert_no_slice_is_worse, axes, errors, formats, random_rows, weights
from torch import Tensor

from quantisp.quantization import IntFormat, Rounding
from quantisp.quantization.methods.bit_split import (
    SWEEPS,
    improve_digits,
    split_bits,
    stitch,
    sweep_digits,
)
from quantisp.quantization.methods.gptq import output_error
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


def correlated(inputs: int) -> Tensor:
    """Second moments of inputs that go along with each other."""
    mixing = random_rows(inputs, 4 * inputs).double()
    return (mixing @ mixing.T / (4 * inputs) + 2.0)[None]


def begun(rows: int, inputs: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix, the digits of its codes without data, and their scales."""
    target = random_rows(rows, inputs)
    found = split_bits(target, IntFormat(bits=bits), "half_even", 0)
    digits = sweep_digits(found.codes.double(), bits - 1, "half_even").double()
    return target[None].double(), digits[:, None], found.scale.double()[None]


def stitched(digits: list[list[int]]) -> list[int]:
    return [sum(digit << place for place, digit in enumerate(of_code)) for of_code in digits]


def swept(
    row: Tensor, gram: Tensor, digits: list[list[int]], scale: float
) -> tuple[list[list[int]], float, float]:
    """The paper's alternation on the output, in plain loops; and the error that is left."""

    def error(found: list[list[int]], alpha: float) -> float:
        apart = row - alpha * torch.tensor(stitched(found), dtype=torch.float64)
        return float(apart @ gram @ apart)

    def with_digit(found: list[list[int]], of_code: int, place: int, digit: int) -> list[list[int]]:
        return [
            [digit if (n, m) == (of_code, place) else d for m, d in enumerate(each)]
            for n, each in enumerate(found)
        ]

    for _ in range(SWEEPS):
        codes = torch.tensor(stitched(digits), dtype=torch.float64)
        alpha, new = float((codes @ gram @ row) / (codes @ gram @ codes)), digits
        for place in reversed(range(len(digits[0]))):
            for of_code in range(len(digits)):
                tried = [with_digit(new, of_code, place, digit) for digit in (-1, 0, 1)]
                new = min(tried, key=functools.partial(error, alpha=alpha))
        if error(new, alpha) >= error(digits, scale):
            break
        digits, scale = new, alpha
    return digits, scale, error(digits, scale)


@pytest.mark.reference
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_sweeps_over_digits_are_those_of_plain_loops(bits: int):
    target, digits, scale = begun(3, 5, bits)
    gram = correlated(5)
    found, found_scale = improve_digits(target, gram, digits, scale, "half_even", shared=False)
    errors_left = output_error(target, stitch(found) * found_scale[:, :, None], gram)
    moved = 0
    for row in range(3):
        begin = digits[:, 0, row].int().T.tolist()
        plain, alpha, error = swept(target[0, row], gram[0], begin, float(scale[0, row]))
        assert found[:, 0, row].int().T.tolist() == plain
        assert float(found_scale[0, row]) == pytest.approx(alpha, rel=1e-6)
        assert float(errors_left[0, row]) == pytest.approx(error, rel=1e-5)
        moved += plain != begin
    assert moved > 0  # so that digits of the start would not have passed


@pytest.mark.unit
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("bits", "share"), [(2, 0.9), (4, 0.5), (8, 0.5)])
def test_on_outputs_that_go_along_it_is_far_better_than_without_data(
    bits: int, share: float, shared: bool
):
    target, digits, scale = begun(16, 72, bits)
    scale = scale.mean().expand_as(scale) if shared else scale
    gram = correlated(72)
    found = improve_digits(target, gram, digits, scale, "half_even", shared=shared)
    before, after = (
        output_error(target, stitch(d) * s[:, :, None], gram) for d, s in ((digits, scale), found)
    )
    assert float(after.sum()) < share * float(before.sum())
    assert shared or bool((after <= before).all())
    assert float(found[0].abs().max()) == 1.0
    assert len(found[1].unique()) == (1 if shared else 16)
