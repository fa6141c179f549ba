"""Hardware profiles: what they set, and what a bad one says."""

from __future__ import annotations

import json

import pytest
from activation_kit import noise, tiny_dephasenet

from quantisp.errors import SettingError
from quantisp.quantization import Plan, quantize
from quantisp.quantization.activations.rescaling import choose_rescale
from quantisp.quantization.integer import (
    apply_profile,
    integer_network,
    packaged_profiles,
    read_profile,
)


def test_the_packaged_ones_are_read():
    assert packaged_profiles() == ("isp-shift", "npu-multiplier")
    found = [read_profile(name) for name in packaged_profiles()]
    assert [profile.power_of_two for profile in found] == [True, False]
    assert [profile.accumulator.bits for profile in found] == [24, 32]


def test_a_plan_follows_its_hardware(tmp_path):
    path = tmp_path / "chip.json"
    document = {
        "schema": 1,
        "name": "a small chip",
        "tie_rule": "half_even",
        "power_of_two": False,
        "granularity": "tensor",
        "multiplier_bits": 8,
        "bias_bits": 32,
        "accumulator_bits": 20,
        "overflow": "wrap",
    }
    path.write_text(json.dumps(document))
    profile = read_profile(path)
    plan = Plan.uniform(weight_bits=6, activation_bits=8, granularity="channel")
    made = apply_profile(plan, profile)
    network = integer_network(
        quantize(tiny_dephasenet(), made, [noise(2, 1, 16, 16)]), profile.accumulator
    )
    assert (network.tie_rule, network.accumulator) == ("half_even", profile.accumulator)
    for _, own in network:
        if own.rescale is not None:
            assert own.rescale.multiplier.shape[1] == 1
            assert int(own.rescale.multiplier.abs().max()) < 1 << 8


def test_narrow_multipliers_are_as_near_as_they_can_be():
    import torch

    ratio = torch.logspace(-6, 1, 200, dtype=torch.float64)[None]
    found = choose_rescale(ratio, bits=8)
    assert int(found.multiplier.min()) >= 1 << 7
    assert int(found.multiplier.max()) < 1 << 8
    torch.testing.assert_close(found.ratio(), ratio, rtol=2.0**-8, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2"),
        ({"tie_rule": "down"}, "one of half_up, half_even"),
        ({"granularity": "block"}, "one of tensor, channel"),
        ({"multiplier_bits": 17}, "multiplier_bits from 2 to 16"),
        ({"bias_bits": 4}, "bias_bits from 8 to 48"),
        ({"accumulator_bits": 4}, "accumulator bits from 8 to 64"),
        ({"overflow": "saturate"}, "one of error, wrap, clamp"),
        ({"power_of_two": 1}, "power_of_two of .* as bool"),
        ({"colour": "red"}, "'colour' of .* is missing or unknown"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_a_bad_profile_is_one_line(tmp_path, change, message):
    path = tmp_path / "chip.json"
    good = {
        "schema": 1,
        "name": "",
        "tie_rule": "half_up",
        "power_of_two": False,
        "granularity": "channel",
        "multiplier_bits": 16,
        "bias_bits": 32,
        "accumulator_bits": 32,
        "overflow": "wrap",
    }
    path.write_text(json.dumps({**good, **change}))
    with pytest.raises(SettingError, match=message):
        read_profile(path)


def test_no_profile(tmp_path):
    with pytest.raises(SettingError, match="or one of isp-shift, npu-multiplier, found nothing"):
        read_profile("nothing")
