"""Sensitivities are what quantizing that one layer does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quantisp.errors import PlanError, SettingError
from quantisp.quantization import LayerPlan, Plan, measure_sensitivity, quantize
from quantisp.quantization.layers import find_layers
from quantisp.quantization.statistics import (
    FloatInputs,
    count_calls,
    float_statistics,
    layer_statistics,
)

INPUTS = [torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(n)) for n in range(4)]


def of(method: str) -> Plan:
    return Plan.uniform(weight_bits=4, method=method, granularity="channel")


@pytest.mark.unit
def test_it_is_the_error_of_quantizing_that_layer_alone(zoo: nn.Module):
    found = measure_sensitivity(zoo, of("mse"), INPUTS, widths=(3, 6))
    assert list(found) == list(find_layers(zoo))
    held_out = INPUTS[3]
    for name, errors in found.items():
        for bits, error in errors.items():
            alone = Plan.uniform(weight_bits=None).with_layer(
                name, LayerPlan(weight_bits=bits, method="mse", granularity="channel")
            )
            with torch.inference_mode():
                apart = quantize(zoo, alone)(held_out) - zoo(held_out)
            assert error == pytest.approx(float(apart.double().square().mean()), rel=1e-4)
        assert errors[3] > errors[6] > 0.0


@pytest.mark.unit
@pytest.mark.parametrize("method", ["rtn", "mse"])
def test_transposed_convolutions_of_groups_have_a_scale_for_each_channel(method: str):
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3)).eval()
    with torch.no_grad():
        sizes = torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)
        network[0].get_parameter("weight").mul_(sizes)
    inputs = [x.expand(-1, 3, -1, -1) for x in INPUTS]
    found = measure_sensitivity(network, of(method), inputs, widths=(4,))
    with torch.inference_mode():
        apart = quantize(network, of(method))(inputs[3]) - network(inputs[3])
    assert found["0"][4] == pytest.approx(float(apart.double().square().mean()), rel=1e-4)


@pytest.mark.unit
def test_methods_that_look_at_inputs_see_the_float_statistics(zoo: nn.Module):
    mse, calibrated = (
        measure_sensitivity(zoo, of(method), INPUTS, widths=(3,)) for method in ("mse", "quantease")
    )
    assert sum(e[3] for e in calibrated.values()) < sum(e[3] for e in mse.values())


@pytest.mark.unit
def test_auto_is_stood_for(zoo: nn.Module):
    assert measure_sensitivity(zoo, of("auto"), INPUTS, widths=(4,)) == measure_sensitivity(
        zoo, of("mse"), INPUTS, widths=(4,)
    )


@pytest.mark.unit
def test_what_is_known_is_not_measured_again_and_the_network_stays(zoo: nn.Module):
    before = {name: value.clone() for name, value in zoo.state_dict().items()}
    told: dict[str, dict[int, float]] = {}
    found = measure_sensitivity(
        zoo,
        of("mse"),
        INPUTS,
        widths=(2, 4),
        known={"head": {2: 0.5, 4: 0.25}, "mix": {2: 1.0}},
        on_layer=lambda name, errors: told.update({name: dict(errors)}),
    )
    assert found["head"] == {2: 0.5, 4: 0.25}
    assert found["mix"][2] != 1.0
    assert told == {name: errors for name, errors in found.items() if name != "head"}
    assert all(torch.equal(before[name], value) for name, value in zoo.state_dict().items())


@pytest.mark.reference
def test_one_pass_gives_the_statistics_of_layer_after_layer(zoo: nn.Module):
    names = list(find_layers(zoo))
    calls = count_calls(zoo, INPUTS[0], names)
    found = float_statistics(zoo, names, INPUTS)
    for name in names:
        expected = layer_statistics(zoo, name, FloatInputs(zoo, INPUTS, calls))
        torch.testing.assert_close(found[name].gram, expected.gram)
        torch.testing.assert_close(found[name].cross, expected.cross)
        torch.testing.assert_close(found[name].mean, expected.mean)
        assert found[name].count == expected.count


@pytest.mark.unit
def test_what_cannot_be_measured_is_refused(zoo: nn.Module):
    with pytest.raises(PlanError, match="at least one layer"):
        measure_sensitivity(zoo, Plan.uniform(weight_bits=None), INPUTS)
    for inputs in ([], [torch.full((1, 1, 12, 12), torch.nan)]):
        with pytest.raises(SettingError, match="finite calibration inputs"):
            measure_sensitivity(zoo, of("mse"), inputs)
