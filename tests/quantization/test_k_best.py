"""K-best: against every combination of codes, and never farther than GPTQ."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from quantisp.quantization import IntFormat
from quantisp.quantization.methods.gptq import gptq, output_error
from quantisp.quantization.methods.k_best import (
    _damped,
    _search,
    _TabuSearch,
    round_by_k_best,
    round_by_k_best_with_bias,
    sorted_columns,
)
from quantisp.quantization.statistics import LayerStatistics

pytestmark = pytest.mark.unit


def correlated(columns: int) -> Tensor:
    mixing = torch.randn(columns, columns, dtype=torch.float64)
    samples = torch.randn(200, columns, dtype=torch.float64) @ mixing + 0.5
    return samples.mT @ samples / 200


@pytest.mark.reference
def test_it_finds_the_nearest_of_all_combinations() -> None:
    torch.manual_seed(1)
    int_format = IntFormat(bits=2)
    every = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4)), dtype=torch.float64)
    for _ in range(20):
        rows, gram = torch.randn(3, 4, dtype=torch.float64), correlated(4)
        scale = rows.abs().amax(dim=1)
        found = _search(rows, gram, scale, int_format)
        apart = rows[:, None] - every[None] * scale[:, None, None]
        least = ((apart @ gram) * apart).sum(dim=2).amin(dim=1)
        errors = output_error(rows[None], (found * scale[:, None])[None], gram[None])[0]
        torch.testing.assert_close(errors, least)


@pytest.mark.reference
def test_a_tabu_search_leaves_what_a_descent_would_end_in() -> None:
    """Most rows come to the best of all combinations, whatever they begin with; none gets worse."""
    torch.manual_seed(3)
    int_format = IntFormat(bits=2)
    every = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=6)), dtype=torch.float64)
    reached = ended = 0
    for _ in range(20):
        rows, gram = torch.randn(5, 6, dtype=torch.float64), correlated(6)
        scale = rows.abs().amax(dim=1)
        begun = torch.randint(-1, 2, rows.shape).double()

        def errors(codes: Tensor, of: Tensor = rows, by: Tensor = gram) -> Tensor:
            step = of.abs().amax(dim=1)[:, None]
            return output_error(of[None], (codes * step)[None], by[None])[0]

        found = _TabuSearch(rows, gram, begun, scale, int_format).best(60)
        assert bool((errors(found) <= errors(begun) * (1 + 1e-6)).all())
        assert float(found.abs().max()) <= 1.0
        least = torch.stack([errors(one.expand_as(rows)) for one in every]).amin(dim=0)
        reached += int((errors(found) <= least * (1 + 1e-6)).sum())
        # The twin: where no code alone can be moved for the better.
        near, code = begun.clone(), torch.eye(6, dtype=torch.float64)
        for _ in range(20):
            moves = [near, *((near + s * one).clamp(-1, 1) for s in (-1, 1) for one in code)]
            best = torch.stack([errors(moved) for moved in moves]).argmin(dim=0)
            near = torch.stack(moves)[best, torch.arange(len(rows))]
        ended += int((errors(near) <= least * (1 + 1e-6)).sum())
    assert reached >= 90
    assert ended < reached - 10


def test_no_row_is_farther_than_by_gptq() -> None:
    torch.manual_seed(2)
    layer = nn.Conv2d(6, 8, 3)
    weight, gram = layer.weight.detach(), correlated(54)[None]
    mean = torch.zeros(1, 54, dtype=torch.float64)
    statistics = LayerStatistics(gram=gram, cross=gram, mean=mean, float_mean=mean, count=200)
    int_format, target = IntFormat(bits=3), weight.double().reshape(1, 8, -1)
    found, bias = round_by_k_best(layer, weight, int_format, "half_even", 0, statistics)
    codes, scale = gptq(target, gram, int_format, "half_even", shared=False)
    by_gptq = output_error(target, codes * scale[:, :, None], gram)
    by_k_best = output_error(target, found.dequantize().double().reshape(1, 8, -1), gram)
    assert bias is None
    assert bool((by_k_best <= by_gptq * (1 + 1e-6)).all())
    assert float(by_k_best.sum()) < 0.95 * float(by_gptq.sum())


def test_a_layer_that_sees_nothing_is_rounded_all_the_same() -> None:
    torch.manual_seed(2)
    layer, none = nn.Conv2d(2, 3, 3), torch.zeros(1, 18, 18, dtype=torch.float64)
    mean = torch.zeros(1, 18, dtype=torch.float64)
    statistics = LayerStatistics(gram=none, cross=none, mean=mean, float_mean=mean, count=1)
    weight, int_format = layer.weight.detach(), IntFormat(bits=4)
    found, _ = round_by_k_best(layer, weight, int_format, "half_even", 0, statistics)
    assert int(found.codes.abs().max()) <= 7
    assert bool(torch.isfinite(found.scale).all())
    assert bool((found.scale > 0).all())


def test_with_a_bias_errors_of_the_mean_cost_nothing() -> None:
    torch.manual_seed(2)
    layer, int_format = nn.Conv2d(6, 8, 3), IntFormat(bits=3)
    weight, mean = layer.weight.detach(), torch.full((1, 54), 2.0, dtype=torch.float64)
    spread, none = correlated(54)[None], torch.zeros_like(mean)
    gram = spread + mean[:, :, None] * mean[:, None]
    seen = LayerStatistics(gram=gram, cross=gram, mean=mean, float_mean=mean, count=200)
    found, bias = round_by_k_best_with_bias(layer, weight, int_format, "half_even", 0, seen)
    still = LayerStatistics(gram=spread, cross=spread, mean=none, float_mean=none, count=200)
    without, _ = round_by_k_best(layer, weight, int_format, "half_even", 0, still)
    assert torch.equal(found.codes, without.codes)
    assert bias is not None
    outputs = found.dequantize().double().reshape(8, -1) @ mean[0] + bias
    old = layer.get_parameter("bias").detach()
    torch.testing.assert_close(outputs, weight.double().reshape(8, -1) @ mean[0] + old)


def test_moments_that_rounding_made_indefinite_are_damped_more() -> None:
    """As those of few inputs are, without their means."""
    sound = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).diag()
    assert torch.equal(_damped(sound), sound + 2e-5 * torch.eye(3, dtype=torch.float64))
    indefinite = torch.tensor([1.0, 2.0, -1e-3], dtype=torch.float64).diag()
    assert float(torch.linalg.eigvalsh(_damped(indefinite)).min()) > 0.0


def test_what_is_left_decides_about_the_order() -> None:
    first = torch.tensor([1.0, 0.0, 0.2], dtype=torch.float64)
    samples = torch.stack([first, 3 * first + torch.tensor([0, 1.0, 0]), torch.tensor([0, 0, 9.0])])
    gram = samples @ samples.mT
    assert sorted_columns(gram).tolist() == [0, 1, 2]
