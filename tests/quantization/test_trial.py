"""Nonsense is found in a moment: inputs that are none, and networks that give NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import RunError, SettingError
from quantisp.quantization import Plan, QuantizedModel, quantize
from quantisp.quantization.trial import check_inputs

METHODS = ["gptq", "adaround", "yaqa", "brecq", "equalization", "incremental", "auto"]


class Net(nn.Module):
    """What ``after`` does comes last."""

    def __init__(self, after: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x))) * self.after


class Exact(Net):
    """NaN as soon as its weights are others than they were."""

    def forward(self, x: Tensor) -> Tensor:
        sums = float(self.first.weight.detach().double().sum())
        self.known: float = getattr(self, "known", sums)
        return super().forward(x) if sums == self.known else super().forward(x) * torch.nan


def inputs() -> list[Any]:
    return [torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(n)) for n in range(4)]


def rounded(net: nn.Module, method: str, calibration: Any, **changes: Any) -> QuantizedModel:
    plan = Plan.uniform(**{"weight_bits": 4, "method": method, "granularity": "channel", **changes})
    return quantize(net.eval(), plan, calibration)


@pytest.mark.unit
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("after", [torch.nan, torch.inf])
def test_a_network_that_gives_nan_is_not_rounded(method: str, after: float) -> None:
    with pytest.raises(RunError, match="finite outputs of the float network"):
        rounded(Net(after), method, inputs())


@pytest.mark.unit
def test_nor_are_its_activations() -> None:
    with pytest.raises(RunError, match="finite outputs of the float network"):
        rounded(Net(torch.nan), "rtn", inputs(), activation_bits=8)


@pytest.mark.unit
def test_a_network_that_gives_nan_when_it_is_rounded_is_not_given() -> None:
    net = Exact()
    net(inputs()[0])
    with pytest.raises(RunError, match="finite outputs of the quantized network"):
        rounded(net, "gptq", inputs())


@pytest.mark.unit
@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.rand(2, 1, 16, 16), "a list of network inputs as calibration, found one Tensor"),
        ("folder", "a list of network inputs as calibration, found one str"),
        ([np.zeros((1, 1, 16, 16))], "as tensors, found ndarray: convert them"),
        ([torch.rand(0, 1, 16, 16)] * 2, "with values, found one of shape .0, 1, 16, 16."),
    ],
)
def test_inputs_that_are_none(calibration: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_inputs(calibration)


@pytest.mark.unit
def test_they_are_refused_before_anything_is_rounded() -> None:
    with pytest.raises(SettingError, match="it fails on one of shape"):
        rounded(Net(), "gptq", [torch.rand(2, 3, 16, 16)])


@pytest.mark.unit
def test_the_same_input_twice_is_one_to_fit_to_and_one_to_decide_by() -> None:
    x = inputs()[0]
    assert rounded(Net(), "auto", [x, x], weight_bits=16).decisions
