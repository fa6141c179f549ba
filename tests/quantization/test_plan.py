from __future__ import annotations

import json
import pickle

import pytest
from torch import nn

from quantisp.errors import PlanError, SettingError
from quantisp.quantization import LayerPlan, Plan

pytestmark = pytest.mark.unit

MIXED = (
    Plan.uniform(weight_bits=6, granularity="channel")
    .with_layer("up", LayerPlan(weight_bits=None))
    .with_layer("mix", LayerPlan(weight_bits=12, narrow_range=False, rounding="half_away"))
)


def test_uniform_plan_says_the_same_of_every_layer(zoo: nn.Module):
    resolved = Plan.uniform(weight_bits=6).resolve(zoo)
    assert list(resolved) == ["head", "depthwise", "grouped", "up", "mix"]
    assert set(resolved.values()) == {LayerPlan(weight_bits=6)}


def test_layers_by_name_come_first(zoo: nn.Module):
    resolved = MIXED.resolve(zoo)
    assert [resolved[name].weight_bits for name in resolved] == [6, 6, 6, None, 12]


def test_plan_is_frozen_hashable_and_picklable():
    layers = {"mix": LayerPlan(weight_bits=4)}
    plan = Plan(default=LayerPlan(weight_bits=8), layers=layers)
    layers["up"] = LayerPlan(weight_bits=2)
    assert list(plan.layers) == ["mix"]
    assert plan.with_layer("up", layers["up"]) != plan
    assert list(plan.layers) == ["mix"]
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert len({plan, Plan(default=plan.default, layers=plan.layers), MIXED}) == 2


def test_json_comes_back_and_is_stable():
    assert Plan.from_json(MIXED.to_json()) == MIXED
    other_order = Plan(default=MIXED.default, layers=dict(reversed(MIXED.layers.items())))
    assert other_order == MIXED
    assert other_order.to_json() == MIXED.to_json()
    assert hash(other_order) == hash(MIXED)


def test_hand_written_layers_inherit_from_the_default():
    text = """{"schema": 1, "default": {"weight_bits": 6, "granularity": "channel"},
               "layers": {"mix": {"weight_bits": 10}}}"""
    plan = Plan.from_json(text)
    assert plan.for_layer("mix") == LayerPlan(weight_bits=10, granularity="channel")


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": 17}, "weight bits are 2 to 16, found 17"),
        (
            {"weight_bits": 8, "activation_bits": 3},
            "expected activation bits from 4 to 16, found 3",
        ),
        ({"weight_bits": 8, "method": "best"}, "expected a method among rtn, .*auto, found 'best'"),
        (
            {"weight_bits": 8, "granularity": "group"},
            "expected one of tensor, channel, found 'group'",
        ),
        ({"weight_bits": 8, "rounding": "up"}, "half_even, half_up, half_away, found 'up'"),
    ],
)
def test_settings_that_do_not_exist(settings: dict[str, object], message: str):
    with pytest.raises(SettingError, match=message) as raised:
        LayerPlan(**settings)
    assert "\n" not in str(raised.value)
    text = json.dumps({"schema": 1, "default": settings})
    with pytest.raises(PlanError, match=f"in default of the plan: .*{message}"):
        Plan.from_json(text)


DEFAULT = '{"weight_bits": 8}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a plan as JSON"),
        ("{", "expected a plan as JSON"),
        ("[]", r"expected a JSON object as the plan, found \[\]"),
        ("{}", "expected a plan of schema 1, found none"),
        ('{"schema": 2}', "expected a plan of schema 1, found 2"),
        ('{"schema": true}', "expected a plan of schema 1, found True"),
        ('{"schema": 1}', "expected default in the plan, found none"),
        ('{"schema": 1, "default": {}}', "expected weight_bits in default"),
        ('{"schema": 1, "default": {"bits": 8}}', "in default, found 'bits'"),
        ('{"schema": 1, "layer": {}}', "in the plan, found 'layer'"),
        ('{"schema": 1, "default": {"weight_bits": "8"}}', "a whole number or null as weight_bits"),
        ('{"schema": 1, "default": {"weight_bits": true}}', "weight_bits of default, found true"),
        ('{"schema": 1, "default": {"weight_bits": 8.0}}', "found 8.0"),
        ('{"schema": 1, "default": {"weight_bits": 8, "weight_bits": 4}}', "'weight_bits' again"),
        (f'{{"schema": 1, "default": {DEFAULT}, "layers": []}}', "as layers, found"),
        (f'{{"schema": 1, "default": {DEFAULT}, "layers": {{"a": 4}}}}', "as layer 'a', found 4"),
        (
            f'{{"schema": 1, "default": {DEFAULT}, "layers": {{"a": {{"narrow_range": 1}}}}}}',
            "expected true or false as narrow_range of layer 'a', found 1",
        ),
    ],
)
def test_malformed_text_is_refused_in_one_line(text: str, message: str):
    with pytest.raises(PlanError, match=message) as raised:
        Plan.from_json(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["tail", "norm", "head.weight"])
def test_layer_that_the_network_does_not_have(zoo: nn.Module, name: str):
    plan = Plan.uniform().with_layer(name, LayerPlan(weight_bits=None))
    with pytest.raises(PlanError, match=f"names '{name}': choose among head, depthwise"):
        plan.resolve(zoo)


def test_network_without_weights():
    with pytest.raises(PlanError, match="expected a network with weights"):
        Plan.uniform().resolve(nn.ReLU())
    assert Plan.uniform(weight_bits=None).resolve(nn.ReLU()) == {}
