"""Stages of incremental rounding: every layer once, the sensitive alone, halves of what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quantisp.quantization.layers import find_layers
from quantisp.quantization.stages import MOST_ALONE, Stage, ends_of, grouped, method_of, stages_of

pytestmark = pytest.mark.unit

ERRORS = st.dictionaries(st.text("abcdef", min_size=1), st.floats(0.0, 1.0), min_size=1)


@given(ERRORS)
def test_every_layer_comes_once_and_those_with_more_error_come_first(
    errors: dict[str, float],
) -> None:
    stages = stages_of(errors)
    names = [name for stage in stages for name in stage.layers]
    assert sorted(names) == sorted(errors)
    found = [errors[name] for name in names]
    assert found == sorted(found, reverse=True)
    alone = [stage for stage in stages if stage.is_alone]
    assert len(alone) <= MOST_ALONE
    assert all(len(stage.layers) == 1 for stage in alone)
    assert stages[: len(alone)] == alone
    assert grouped(stages) == names[len(alone) :]


def test_each_group_takes_half_of_what_is_left() -> None:
    errors = {f"layer{number}": 0.9**number for number in range(60)}
    groups = [stage.layers for stage in stages_of(errors) if not stage.is_alone]
    left = sum(errors[name] for group in groups for name in group)
    for group in groups[:-1]:
        before, left = left, left - sum(errors[name] for name in group)
        assert left <= 0.5 * before
        assert left + errors[group[-1]] > 0.5 * before


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_group_of_one_is_rounded_as_other_groups_are(is_alone: bool) -> None:
    layers = find_layers(nn.ModuleDict({"one": nn.Conv2d(8, 8, 3), "other": nn.Conv2d(8, 8, 3)}))
    stage = Stage(("one",), is_alone)
    assert method_of(layers, stage) == ("k-best-bias" if is_alone else "yaqa")
    assert method_of(layers, Stage(("one", "other"))) == "yaqa"
    assert ends_of(30, [stage, Stage(("other",))]) == ([20, 30] if is_alone else [15, 30])


def test_a_large_layer_is_rounded_by_yaqa_even_alone() -> None:
    layers = find_layers(nn.ModuleDict({"one": nn.Conv2d(64, 2, 3)}))
    assert method_of(layers, Stage(("one",), is_alone=True)) == "yaqa"


@given(ERRORS, st.integers(0, 1000))
def test_stages_end_in_turn_and_the_last_with_the_steps(
    errors: dict[str, float], steps: int
) -> None:
    ends = ends_of(steps, stages_of(errors))
    assert ends == sorted(ends)
    assert ends[-1] == steps
