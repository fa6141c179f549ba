from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from training_kit import (
    KODAK_CFA,
    equal,
    saved_run,
    tiny_net,
    tiny_patches,
    tiny_settings,
    validation,
)

from quantisp.data import PatchCache
from quantisp.errors import RunError, SettingError
from quantisp.training import CurvePoint, TrainProgress, TrainSettings, losses, progress, train
from quantisp.training import run as state_of_run
from quantisp.training.optimizers import Optimizers

pytestmark = pytest.mark.unit


def run(
    folder: Path, settings: TrainSettings, patches: PatchCache | None = None, **options: Any
) -> tuple[nn.Module, tuple[CurvePoint, ...]]:
    net = tiny_net()
    curve = train(
        net,
        patches or tiny_patches(),
        validation(),
        settings,
        pattern=KODAK_CFA,
        folder=folder,
        **options,
    )
    return net, curve


def test_the_network_gets_better(tmp_path: Path) -> None:
    settings = tiny_settings(steps=60, validate_every=15, learning_rate=2e-3)
    _, curve = run(tmp_path, settings)
    assert [point.step for point in curve] == [15, 30, 45, 60]
    assert curve[-1].psnr_db > curve[0].psnr_db + 3.0
    losses = [point.loss for point in curve[:3]]
    assert losses[0] > losses[1] > losses[2]


def test_the_averaged_weights_are_left_in_the_network(tmp_path: Path) -> None:
    net, _ = run(tmp_path, tiny_settings())
    state = saved_run(tmp_path)
    assert equal(dict(net.state_dict()), dict(state["averaged"]))
    assert not equal(dict(state["averaged"]), dict(state["model"]))


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        net, _ = run(tmp_path / name, tiny_settings(seed=seed))
        weights.append(dict(net.state_dict()))
    assert equal(weights[0], weights[1])
    assert not equal(weights[0], weights[2])


class Recording(PatchCache):
    def batch(self, *, step: int, size: int, patch_px: int, **rest: Any) -> Tensor:
        self.asked = [*getattr(self, "asked", []), (step, size, patch_px)]
        return super().batch(step=step, size=size, patch_px=patch_px, **rest)


def test_the_last_phase_has_larger_patches_and_squared_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    frequency_loss = losses.frequency_loss

    def counted(image: Tensor, reference: Tensor) -> Tensor:
        calls.append(image.shape[-1])
        return frequency_loss(image, reference)

    monkeypatch.setattr(losses, "frequency_loss", counted)
    patches = tiny_patches(Recording)
    run(tmp_path, tiny_settings(steps=12, last_phase=0.25), patches)
    assert isinstance(patches, Recording)
    # 48 px hold 2.25 times the pixels of 32, so about 2 patches instead of 4.
    assert patches.asked == [(s, 4, 32) for s in range(9)] + [(s, 2, 48) for s in range(9, 12)]
    assert calls == [32] * 9


def test_the_learning_rate_warms_up_and_ends_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    step = Optimizers.step

    def noted(self: Optimizers, learning_rate: float) -> None:
        rates.append(learning_rate)
        step(self, learning_rate)

    monkeypatch.setattr(Optimizers, "step", noted)
    run(tmp_path, tiny_settings(steps=40, learning_rate=1e-3, warmup_steps=8, patch_px=16))
    assert len(rates) == 40
    assert rates[0] == pytest.approx(1e-3 / 8)
    rises = [later > earlier for earlier, later in itertools.pairwise(rates)]
    assert rises == [True] * 7 + [False] * 32
    assert max(rates) < 1e-3
    assert 1e-5 < rates[-1] < 1.5e-5


def test_a_time_limit_ends_the_run(tmp_path: Path) -> None:
    settings = tiny_settings(steps=10**9, time_limit_s=0.5, validate_every=10**9)
    seen: list[TrainProgress] = []
    _, curve = run(tmp_path, settings, on_progress=seen.append)
    assert len(curve) == 1
    assert 0.5 <= curve[0].elapsed_s < 5.0
    assert seen[-1].share == 1.0
    assert seen[-1].step == curve[0].step > 0
    assert seen[-1].curve == curve
    # The limit is for all resumptions together: there is nothing left to do.
    _, again = run(tmp_path, settings, resume=True)
    assert again == curve


def test_the_best_networks_are_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two pictures a validation.
    scripted = iter([10.0, 10.0, 12.0, 12.0, 11.0, 11.0, 12.0, 12.0, 11.0, 14.0])
    monkeypatch.setattr(progress, "psnr_db", lambda _mse: next(scripted))
    better: list[CurvePoint] = []
    weights: dict[int, dict[str, Tensor]] = {}

    def keep(net: nn.Module, point: CurvePoint) -> None:
        better.append(point)
        weights[point.step] = {name: value.clone() for name, value in net.state_dict().items()}

    _, curve = run(tmp_path, tiny_settings(steps=10, validate_every=2), on_better=keep)
    assert [point.psnr_db for point in curve] == [10.0, 12.0, 11.0, 12.0, 12.5]
    assert [point.step for point in better] == [2, 4, 10]
    assert equal(weights[10], dict(saved_run(tmp_path)["averaged"]))
    assert not equal(weights[4], weights[10])


class Spoilt(PatchCache):
    """Infinite patches at the steps of ``at``, in the stream that a run begins with."""

    at: tuple[int, ...] = ()
    for_ever = False

    def batch(self, *, step: int, **rest: Any) -> Tensor:
        batch = super().batch(step=step, **rest)
        stream, step = divmod(step, state_of_run.STREAM_STEPS)
        spoilt = step in self.at and (stream == 0 or self.for_ever)
        return batch * float("inf") if spoilt else batch


def spoilt(*at: int, for_ever: bool = False) -> Spoilt:
    patches = tiny_patches(Spoilt)
    assert isinstance(patches, Spoilt)
    patches.at, patches.for_ever = at, for_ever
    return patches


def test_a_run_that_went_astray_goes_on_from_sound_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net, curve = run(tmp_path, tiny_settings(snapshot_every=2), spoilt(7))
    assert [point.step for point in curve] == [5, 10, 12]
    assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    assert saved_run(tmp_path)["returns"] == 1
    assert "the loss went astray (nan at step 8): going on from step 5 with 0.7" in caplog.text


def test_the_learning_rate_stays_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[bool, list[float]] = {}
    step = Optimizers.step
    for bad in (False, True):
        rates[bad] = []

        def noted(self: Optimizers, learning_rate: float, bad: bool = bad) -> None:
            rates[bad].append(learning_rate)
            step(self, learning_rate)

        monkeypatch.setattr(Optimizers, "step", noted)
        (tmp_path / str(bad)).mkdir()
        run(tmp_path / str(bad), tiny_settings(snapshot_every=2), spoilt(*([7] * bad)))
    assert len(rates[True]) == 15
    assert rates[True][8:] == [pytest.approx(0.7 * rate) for rate in rates[False][5:]]


def test_a_jump_of_the_loss_is_astray_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Optimizers.step

    taken: list[float] = []

    def kicked(self: Optimizers, learning_rate: float) -> None:
        taken.append(learning_rate)
        step(self, 3.0 if len(taken) == 31 else learning_rate)

    monkeypatch.setattr(Optimizers, "step", kicked)
    _, curve = run(tmp_path, tiny_settings(steps=60, last_phase=0.0, learning_rate=2e-3))
    assert "at step 35): going on from step 25 with 0.7" in caplog.text
    assert curve[-1].psnr_db > 15.0


# A loss that is not finite is seen at once, a jump when most losses are affected.
@pytest.mark.parametrize(("spoil", "sound"), [(math.nan, 10), (1e3, 20)])
def test_what_goes_astray_just_before_a_snapshot_does_not_spoil_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: float,
    sound: int,
) -> None:
    step = Optimizers.step
    taken: list[float] = []

    def kicked(self: Optimizers, learning_rate: float) -> None:
        taken.append(learning_rate)
        step(self, spoil if len(taken) == 29 else learning_rate)

    monkeypatch.setattr(Optimizers, "step", kicked)
    settings = tiny_settings(
        steps=60, last_phase=0.0, learning_rate=2e-3, snapshot_every=10, validate_every=1000
    )
    _, curve = run(tmp_path, settings)
    assert caplog.text.count("the loss went astray") == 1
    assert f"going on from step {sound} with" in caplog.text
    assert curve[-1].psnr_db > 15.0


def test_a_run_that_always_goes_astray_ends_and_leaves_sound_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is nan at step 8, after 10 returns to sound"):
        run(tmp_path, tiny_settings(snapshot_every=2), spoilt(7, for_ever=True))
    state = saved_run(tmp_path)
    assert state["step"] == 5
    assert all(bool(value.isfinite().all()) for value in state["model"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "give --steps, --time-limit, or both"),
        ({"steps": 0}, "steps must be above 0, found 0"),
        ({"steps": None, "time_limit_s": -1.0}, "time_limit_s must be above 0"),
        ({"time_limit_s": float("nan")}, "time_limit_s must be above 0"),
        ({"batch": 0}, "batch must be above 0"),
        ({"patch_px": -32}, "patch_px must be above 0"),
        ({"last_patch_px": 0}, "last_patch_px must be above 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"validate_every": 0}, "validate_every must be above 0"),
        ({"last_phase": 1.5}, "last_phase is a share from 0 to 1, found 1.5"),
        ({"ema_decay": -0.1}, "ema_decay is a share from 0 to 1"),
        ({"seed": -1}, "a seed is an integer from 0"),
        ({"seed": 2**31}, "a seed is an integer from 0"),
        ({"optimizer": "sgd"}, "expected an optimizer of muon, adamw, found 'sgd'"),
        ({"detail_power": -1.0}, "detail_power must be at least 0"),
        ({"colour_jitter": 1.5}, "colour_jitter is a share from 0 to 1"),
        ({"snapshot_every": 0}, "snapshot_every must be above 0"),
        ({"precision": "float16"}, "expected a precision of auto"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny_settings(**changes)
