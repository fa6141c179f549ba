"""YAQA: against rounding code by code with the whole matrix, and at the network's output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import RunError
from quantisp.quantization import IntFormat, Plan, quantize
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.methods import yaqa
from quantisp.quantization.methods.quantease import round_by_quantease_with_bias
from quantisp.quantization.methods.yaqa import _cost, _refitted, _rounded, round_by_yaqa
from quantisp.quantization.network import output_error
from quantisp.quantization.statistics import LayerStatistics, float_statistics

pytestmark = pytest.mark.unit


def moments(size: int) -> Tensor:
    mixing = torch.randn(size, size, dtype=torch.float64)
    return mixing @ mixing.mT / size + 0.01 * torch.eye(size, dtype=torch.float64)


def one_by_one(rows: Tensor, gram: Tensor, curvature: Tensor, scale: Tensor, top: int) -> Tensor:
    """Babai's method on all codes of a matrix, by the factor of the whole Kronecker product."""
    by_column = torch.argsort(gram.diagonal(), descending=True)
    by_row = torch.argsort(curvature.diagonal() * scale**2, descending=True)
    whole = torch.kron(curvature[by_row][:, by_row], gram[by_column][:, by_column])
    lower = torch.linalg.cholesky(whole.flip(0, 1)).flip(0, 1).mT
    lower = lower / lower.diagonal()[:, None]
    wanted = rows[by_row][:, by_column].flatten()
    step = scale[by_row].repeat_interleave(rows.shape[1])
    error, codes = torch.zeros_like(wanted), torch.zeros_like(wanted)
    for index in range(len(wanted)):
        ideal = wanted[index] + lower[index, :index] @ error[:index]
        codes[index] = (ideal / step[index]).round().clamp(-top, top)
        error[index] = wanted[index] - codes[index] * step[index]
    found = torch.empty_like(rows)
    for position, row in enumerate(by_row.tolist()):
        found[row, by_column] = codes.reshape(rows.shape)[position]
    return found


@pytest.mark.reference
@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize(("height", "width"), [(1, 7), (5, 1), (6, 9), (9, 6)])
def test_diagonals_give_what_one_code_after_the_other_gives(
    height: int, width: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaqa, "BLOCK", block)
    torch.manual_seed(height)
    rows, gram, curvature = (
        torch.randn(height, width, dtype=torch.float64),
        moments(width),
        moments(height),
    )
    scale = rows.abs().amax(dim=1) / 3
    found = _rounded(rows, gram, curvature, scale, IntFormat(bits=3), "half_even")
    torch.testing.assert_close(found, one_by_one(rows, gram, curvature, scale, top=3))


@pytest.mark.parametrize("shared", [False, True])
def test_no_other_scales_cost_less(shared: bool) -> None:
    torch.manual_seed(1)
    rows, gram, curvature = torch.randn(5, 8, dtype=torch.float64), moments(8), moments(5)
    codes = (rows * 3).round()
    fitted = _refitted(rows, gram, curvature, codes, torch.ones(5).double(), shared=shared)
    least = _cost(rows - codes * fitted[:, None], gram, curvature)
    for index in range(1 if shared else 5):
        for factor in (0.999, 1.001):
            other = fitted.clone()
            other[slice(None) if shared else index] *= factor
            assert _cost(rows - codes * other[:, None], gram, curvature) > least


def test_rows_of_zeros_keep_their_scale() -> None:
    torch.manual_seed(2)
    rows, gram, curvature = torch.randn(3, 4, dtype=torch.float64), moments(4), moments(3)
    codes = (rows * 3).round()
    codes[1] = 0.0
    old = torch.tensor([0.3, 0.7, 0.3], dtype=torch.float64)
    fitted = _refitted(rows, gram, curvature, codes, old, shared=False)
    assert float(fitted[1]) == pytest.approx(0.7)
    assert not torch.allclose(fitted, old)


def layers_in_line() -> nn.Sequential:
    """Twelve channels, of which an output shows three sums."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.Conv2d(12, 3, 1))


def some_inputs(seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(4, 2, 14, 12, generator=draw) for _ in range(12)]


@pytest.mark.reference
def test_the_curvature_of_a_linear_end_is_known() -> None:
    """What follows the layer is one matrix M: the curvature is M^T M."""
    network = layers_in_line()
    found = output_curvatures(network, ["2", "3"], some_inputs(1))
    end = network.get_submodule("3").get_parameter("weight").detach().double().flatten(1)
    for curvature, wanted in (
        (found["2"][0], end.mT @ end),
        (found["3"][0], torch.eye(3).double()),
    ):
        apart = curvature / curvature.norm() - wanted / wanted.norm()
        assert float(apart.norm()) < 0.25


def test_outputs_that_nothing_uses_have_none() -> None:
    network = layers_in_line()
    with torch.no_grad():
        network.get_submodule("3").get_parameter("weight")[:, 5] = 0.0
    found = output_curvatures(network, ["2"], some_inputs(1))["2"][0]
    assert not found[5].any()
    assert not found[:, 5].any()
    plan = Plan.uniform(weight_bits=3, method="yaqa", granularity="channel")
    assert quantize(network, plan, some_inputs(1)).codes["2"].shape == (12, 12, 3, 3)


@pytest.mark.parametrize("bits", [3, 5])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_the_output_is_nearer_than_by_the_inputs_alone(bits: int, granularity: str) -> None:
    network, unseen = layers_in_line(), some_inputs(2)
    by_method = {
        method: output_error(
            quantize(
                network,
                Plan.uniform(weight_bits=bits, method=method, granularity=granularity),
                some_inputs(1),
            ).network,
            network,
            unseen,
        )
        for method in ("yaqa", "quantease-bias")
    }
    assert by_method["yaqa"] < 0.8 * by_method["quantease-bias"]


def test_the_cost_is_never_above_that_of_quantease() -> None:
    network = layers_in_line()
    layer = network.get_submodule("2")
    weight = layer.get_parameter("weight").detach()
    curvature = output_curvatures(network, ["2"], some_inputs(1))["2"]
    seen = float_statistics(network, ["2"], some_inputs(1))["2"]
    seen = replace(seen, curvature=curvature)
    for bits in (2, 4, 8):
        costs = [
            _cost(
                (
                    method(layer, weight, IntFormat(bits=bits), "half_even", 0, seen)[
                        0
                    ].dequantize()
                    - weight
                )
                .double()
                .flatten(1),
                seen.centred().gram[0],
                curvature[0],
            )
            for method in (round_by_yaqa, round_by_quantease_with_bias)
        ]
        assert costs[0] < costs[1]


def test_statistics_without_a_curvature_are_refused() -> None:
    layer = nn.Linear(3, 2)
    one, zero = torch.eye(3).double()[None], torch.zeros(1, 3).double()
    statistics = LayerStatistics(gram=one, cross=one, mean=zero, float_mean=zero, count=9)
    with pytest.raises(RunError, match="curvature"):
        round_by_yaqa(layer, layer.weight.detach(), IntFormat(bits=4), "half_even", 0, statistics)
