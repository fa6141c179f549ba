"""A run that was stopped and resumed is the run that was never stopped, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_kit import (
    KODAK_CFA,
    equal,
    saved_run,
    soft_picture,
    tiny_net,
    tiny_patches,
    tiny_settings,
    validation,
)

from quantisp.data import PatchCache, TileSet
from quantisp.errors import ModelError
from quantisp.models import DePhaseNet, DePhaseNetConfig
from quantisp.training import TrainSettings, check_run_folder, train

pytestmark = pytest.mark.unit


class Stopped(Exception):
    pass


class StoppedAt(PatchCache):
    stop = -1

    def batch(self, *, step: int, **rest: Any) -> Tensor:
        if step == self.stop:
            raise Stopped
        return super().batch(step=step, **rest)


def run(
    folder: Path,
    settings: TrainSettings,
    *,
    stop: int = -1,
    resume: bool = False,
    net: nn.Module | None = None,
) -> None:
    folder.mkdir(exist_ok=True)
    patches = tiny_patches(StoppedAt)
    patches.stop = stop  # pyright: ignore[reportAttributeAccessIssue]
    # A resumed run may start from any weights: all of them come from the checkpoint.
    net = net or tiny_net(seed=99 if resume else 0)
    train(net, patches, validation(), settings, pattern=KODAK_CFA, folder=folder, resume=resume)


def stopped(folder: Path, settings: TrainSettings, stop: int) -> None:
    with pytest.raises(Stopped):
        run(folder, settings, stop=stop, resume=(folder / "checkpoint.pt").exists())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resuming_is_exact(tmp_path: Path, precision: str) -> None:
    run(tmp_path / "straight", tiny_settings(precision=precision, snapshot_every=1))
    # A checkpoint after every step; stopped in the warm-up, after a validation, just before and in
    # the last phase.
    often = tiny_settings(precision=precision, checkpoint_every_s=1e-9, snapshot_every=1)
    for stop in (1, 5, 8, 11):
        stopped(tmp_path / "resumed", often, stop)
    run(tmp_path / "resumed", often, resume=True)
    assert equal(saved_run(tmp_path / "straight"), saved_run(tmp_path / "resumed"))


def test_work_after_the_last_checkpoint_is_done_again(tmp_path: Path) -> None:
    run(tmp_path / "straight", tiny_settings(snapshot_every=2))
    stopped(tmp_path / "resumed", tiny_settings(snapshot_every=2), stop=8)
    assert saved_run(tmp_path / "resumed")["step"] == 5
    run(tmp_path / "resumed", tiny_settings(snapshot_every=2), resume=True)
    assert equal(saved_run(tmp_path / "straight"), saved_run(tmp_path / "resumed"))


@pytest.mark.parametrize("lost", ["muon", "adamw", "averaged", "step", "returns"])
def test_every_part_of_a_checkpoint_matters(tmp_path: Path, lost: str) -> None:
    run(tmp_path / "straight", tiny_settings(snapshot_every=2))
    stopped(tmp_path / "resumed", tiny_settings(snapshot_every=2), stop=8)
    checkpoint = tmp_path / "resumed" / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    match lost:
        case "muon" | "adamw":
            state["optimizers"][lost]["state"] = {}
        case "averaged":
            state["averaged"] = state["model"]
        case "returns":
            state["returns"] = 1
        case _:
            state["step"] += 1
    torch.save(state, checkpoint)
    run(tmp_path / "resumed", tiny_settings(snapshot_every=2), resume=True)
    assert not equal(saved_run(tmp_path / "straight"), saved_run(tmp_path / "resumed"))


def test_a_finished_run_may_be_given_more_steps(tmp_path: Path) -> None:
    run(tmp_path, tiny_settings(steps=6))
    run(tmp_path, tiny_settings(steps=9, validate_every=3), resume=True)
    state = saved_run(tmp_path)
    assert state["step"] == 9
    assert [point["step"] for point in state["curve"]] == [5, 6, 9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"batch": 5}, "batch was 4, is 5"),
        ({"learning_rate": 1.0}, "learning_rate was 0.002, is 1.0"),
        ({"precision": "bfloat16"}, "precision was float32, is bfloat16"),
        ({"patch_px": 16, "ema_decay": 0.5}, "patch_px was 32, is 16, ema_decay was 0.999"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run(tmp_path, tiny_settings(steps=2))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ModelError, match=message):
        run(tmp_path, tiny_settings(steps=4, **changes), resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_another_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path, tiny_settings(steps=2))
    wider = DePhaseNetConfig(fine_channels=12, fine_blocks=1, coarse_channels=8, coarse_blocks=1)
    with pytest.raises(ModelError, match="does not fit"):
        run(tmp_path, tiny_settings(), resume=True, net=DePhaseNet(wider, KODAK_CFA))


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    for name in ("straight", "killed"):
        (tmp_path / name / "cache").mkdir(parents=True)
    run(tmp_path / "straight", tiny_settings())
    with pytest.raises(Stopped):
        run(tmp_path / "killed", tiny_settings(), stop=3)
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()
    for resume in (True, False):
        check_run_folder(tmp_path / "killed", resume=resume)
    torch.manual_seed(0)
    run(tmp_path / "killed", tiny_settings(), resume=True, net=tiny_net())
    assert equal(saved_run(tmp_path / "straight"), saved_run(tmp_path / "killed"))


def test_other_validation_pictures_are_refused(tmp_path: Path) -> None:
    run(tmp_path, tiny_settings(steps=2))
    with pytest.raises(ModelError, match="validation pictures was"):
        train(
            tiny_net(),
            tiny_patches(),
            validation()[:1],
            tiny_settings(),
            pattern=KODAK_CFA,
            folder=tmp_path,
            resume=True,
        )


def test_a_network_that_draws_numbers_is_resumed_exactly(tmp_path: Path) -> None:
    def dropping() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(8, 3, 1))

    often = tiny_settings(snapshot_every=1, checkpoint_every_s=1e-9)
    run(tmp_path / "straight", often, net=dropping())
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", often, stop=8, net=dropping())
    run(tmp_path / "stopped", often, resume=True, net=dropping())
    assert equal(saved_run(tmp_path / "straight"), saved_run(tmp_path / "stopped"))


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found none: start without --resume"):
        check_run_folder(tmp_path, resume=True)


@pytest.mark.parametrize("state", [{}, {"settings": []}, {"settings": {}}])
@pytest.mark.usefixtures("without_shape_checks")
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="does not fit"):
        run(tmp_path, tiny_settings(), resume=True)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="holds a list"):
        run(tmp_path, tiny_settings(), resume=True)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, tiny_settings(steps=2))
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        run(tmp_path, tiny_settings(), resume=True)


def test_another_cfa_and_other_pictures_are_refused(tmp_path: Path) -> None:
    run(tmp_path, tiny_settings())
    more = tiny_settings(steps=20)
    with pytest.raises(ModelError, match="CFA was"):
        train(
            tiny_net(),
            tiny_patches(),
            validation(),
            more,
            pattern=KODAK_CFA.crop(top=1, left=0),
            folder=tmp_path,
            resume=True,
        )
    other = PatchCache(TileSet.of([soft_picture(seed) for seed in (3, 4, 5)]))
    with pytest.raises(ModelError, match="training pictures was"):
        train(
            tiny_net(), other, validation(), more, pattern=KODAK_CFA, folder=tmp_path, resume=True
        )
