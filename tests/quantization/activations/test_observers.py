"""Three ways to a range."""

from __future__ import annotations

import pytest
import torch

from quantisp.errors import PlanError, SettingError
from quantisp.quantization import ActivationSettings, LayerPlan, Plan
from quantisp.quantization.activations.observers import observe


def _observed(values, observer, bits=8, signed=True, **settings):
    return observe(
        [values],
        bits=bits,
        signed=signed,
        settings=ActivationSettings(observer=observer, **settings),
        least_scale=1e-30,
    )


def _error(values, quantizer):
    codes = quantizer.encode(values, "half_up")
    return float((codes * quantizer.scale - values).square().sum())


@pytest.fixture
def heavy_tailed():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20000, generator=generator) ** 3


def test_minmax_holds_every_value(heavy_tailed):
    found = _observed(heavy_tailed, "minmax")
    assert found.scale * found.qmax >= float(heavy_tailed.max()) * (1 - 1e-6)
    assert found.scale * found.qmin <= float(heavy_tailed.min()) * (1 - 1e-6)


def test_a_percentile_leaves_the_rest_out(heavy_tailed):
    found = _observed(heavy_tailed, "percentile", percentile=99.0)
    outside = (heavy_tailed.abs() > found.scale * found.qmax).float().mean()
    assert 0.005 < float(outside) < 0.015


@pytest.mark.property
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_squared_error_is_below_that_of_the_others(heavy_tailed, bits):
    errors = {
        name: _error(heavy_tailed, _observed(heavy_tailed, name, bits=bits))
        for name in ("mse", "minmax", "percentile")
    }
    assert errors["mse"] <= 1.01 * min(errors.values())


def test_fine_steps_leave_room_for_larger_values(heavy_tailed):
    largest = float(heavy_tailed.abs().max())
    wide = _observed(heavy_tailed, "mse", bits=16)
    assert wide.scale * wide.qmax > 1.4 * largest
    assert _observed(heavy_tailed, "mse", bits=4).scale * 7 < largest


def test_zeros_have_the_range_of_the_input():
    """A finer scale would make biases of the next layer larger than an accumulator holds."""
    for observer in ("mse", "minmax", "percentile"):
        found = _observed(torch.zeros(5), observer)
        assert found.scale == 1.0 / found.qmax


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"observer": "entropy"}, "expected one of mse, minmax, percentile, found 'entropy'"),
        ({"percentile": 20.0}, "expected a percentile"),
        ({"input_bits": 3}, "expected input bits from 4 to 16, found 3"),
        ({"output_bits": 17}, "expected output bits from 4 to 16, found 17"),
        ({"bias_bits": 60}, "expected bias bits"),
        ({"tie_rule": "half_away"}, "expected one of half_up, half_even"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_settings_that_do_not_exist(settings, message):
    with pytest.raises(SettingError, match=message):
        ActivationSettings(**settings)


def test_a_plan_keeps_its_activations_in_json():
    plan = Plan(
        default=LayerPlan(weight_bits=6, activation_bits=10),
        activations=ActivationSettings(observer="percentile", percentile=99.9, input_bits=12),
    )
    assert Plan.from_json(plan.to_json()) == plan
    assert hash(Plan.from_json(plan.to_json())) == hash(plan)
    short = '{"schema": 1, "default": {"weight_bits": 6, "activation_bits": 10}}'
    assert Plan.from_json(short) == Plan.uniform(weight_bits=6, activation_bits=10)
    assert plan.without_activations() == Plan.uniform(weight_bits=6)


@pytest.mark.parametrize(
    "activations", ['{"observer": 3}', '{"unknown": 1}', '{"input_bits": 3}', "[]"]
)
def test_a_plan_with_wrong_activations(activations):
    text = f'{{"schema": 1, "default": {{"weight_bits": 6}}, "activations": {activations}}}'
    with pytest.raises(PlanError, match="activations"):
        Plan.from_json(text)
