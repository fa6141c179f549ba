"""A layer that no input reaches: every method that looks at inputs says so, before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import ModelError
from quantisp.quantization import LayerPlan, Plan, method_names, needs_calibration, quantize
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.methods import METHODS, NETWORK
from quantisp.quantization.statistics import float_statistics

pytestmark = pytest.mark.unit

UNUSED = "expected every layer to be used, 'extra' is not by the calibration input: plan it with"
LOOKING = [name for name in method_names() if needs_calibration(name)]


class Spare(nn.Module):
    """A layer of three is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.extra, self.tail = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.head(x).relu())


@pytest.fixture
def inputs() -> list[Tensor]:
    return [torch.rand(1, 3, 12, 12) for _ in range(3)]


@pytest.mark.parametrize("method", LOOKING)
def test_every_method_says_the_same(
    method: str, inputs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        pytest.fail("a layer was rounded, or a method of networks began")

    for table in (METHODS, NETWORK):
        for name in table:
            monkeypatch.setitem(table, name, never)
    with pytest.raises(ModelError, match=UNUSED):
        quantize(Spare(), Plan.uniform(weight_bits=4, method=method), inputs)


@pytest.mark.parametrize(
    "measure",
    [
        lambda network, inputs: float_statistics(network, ["head", "extra"], inputs),
        lambda network, inputs: output_curvatures(network, ["head", "extra"], inputs),
    ],
)
def test_so_does_what_is_measured(measure: Callable[..., object], inputs: list[Tensor]) -> None:
    with pytest.raises(ModelError, match=UNUSED):
        measure(Spare(), inputs)


def test_what_it_advises_works(inputs: list[Tensor]) -> None:
    plan = Plan.uniform(weight_bits=4, method="bias-correction")
    for entry in (LayerPlan(weight_bits=None), LayerPlan(weight_bits=4)):
        found = quantize(Spare(), plan.with_layer("extra", entry), inputs)
        assert found.coverage["extra"].weight_bits == entry.weight_bits
