from __future__ import annotations

import itertools
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
from quantisp.training import CurvePoint, TrainProgress, TrainSettings, loop, train

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
    def batch(self, *, seed: int, step: int, size: int, patch_px: int) -> Tensor:
        self.asked = [*getattr(self, "asked", []), (step, size, patch_px)]
        return super().batch(seed=seed, step=step, size=size, patch_px=patch_px)


def test_the_last_phase_has_larger_patches_and_squared_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    frequency_loss = loop.frequency_loss

    def counted(image: Tensor, reference: Tensor) -> Tensor:
        calls.append(image.shape[-1])
        return frequency_loss(image, reference)

    monkeypatch.setattr(loop, "frequency_loss", counted)
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

    def note(_path: Path, state: dict[str, Any]) -> None:
        rates.append(state["optimizer"]["param_groups"][0]["lr"])

    monkeypatch.setattr(loop, "write_checkpoint", note)
    settings = tiny_settings(
        steps=40, learning_rate=1e-3, warmup_steps=8, checkpoint_every_s=1e-9, patch_px=16
    )
    run(tmp_path, settings)
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
    monkeypatch.setattr(loop, "psnr_db", lambda _mse: next(scripted))
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
    def batch(self, *, seed: int, step: int, size: int, patch_px: int) -> Tensor:
        batch = super().batch(seed=seed, step=step, size=size, patch_px=patch_px)
        return batch * float("inf") if step == 7 else batch


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step 8"):
        run(tmp_path, tiny_settings(), tiny_patches(Spoilt))
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
        ({"precision": "float16"}, "expected a precision of auto"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny_settings(**changes)
