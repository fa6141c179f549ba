from __future__ import annotations

import json
import math

import pytest

from quantisp.training.guard import LossGuard

pytestmark = pytest.mark.unit


def guard_at(usual: float) -> LossGuard:
    guard = LossGuard()
    for _ in range(5):
        assert guard.accepts([usual * 0.5, usual, usual, usual, usual * 2.0], "first")
    return guard


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite(bad: float) -> None:
    assert not guard_at(0.02).accepts([0.02, bad, 0.02], "first")
    assert not LossGuard().accepts([bad], "first")


def test_a_jump_that_stays_is_refused_and_one_hard_batch_is_not() -> None:
    assert guard_at(0.02).accepts([0.02, 2.0, 2.0, 0.02, 0.02], "first")
    assert guard_at(0.02).accepts([0.03, 0.05, 0.06, 0.06, 0.07], "first")
    assert not guard_at(0.02).accepts([0.02, 0.1, 0.2, 0.5, 0.5], "first")


def test_a_few_losses_need_only_be_finite() -> None:
    guard = LossGuard()
    assert guard.accepts([1e-6], "first")
    assert guard.accepts([0.02] * 5, "first")
    assert guard.accepts([2.0, 2.0], "first")
    assert not guard.accepts([2.0] * 5, "first")


def test_what_is_refused_is_not_remembered() -> None:
    guard = guard_at(0.02)
    for _ in range(10):
        assert not guard.accepts([0.2] * 5, "first")
    assert guard == guard_at(0.02)


def test_the_usual_follows_slowly() -> None:
    guard = guard_at(0.02)
    for growth in range(1, 40):
        assert guard.accepts([0.02 * 1.1**growth] * 5, "first")
    assert not guard_at(0.02).accepts([0.02 * 1.1**39] * 5, "first")


def test_another_phase_has_another_loss() -> None:
    guard = guard_at(0.02)
    assert guard.accepts([2.0] * 5, "last")
    assert not guard.accepts([20.0] * 5, "last")


def test_it_survives_a_checkpoint() -> None:
    guard, other = guard_at(0.02), LossGuard()
    other.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert other == guard
