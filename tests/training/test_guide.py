"""A run that is guided: what changes, what is minimised, and when it is validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_kit import KODAK_CFA, saved_run, tiny_net, tiny_patches, tiny_settings, validation

from quantisp.training import train
from quantisp.training.run import TrainingRun

pytestmark = pytest.mark.unit


class Counting(nn.Module):
    """A network that remembers the stage it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_net()
        self.now: Tensor
        self.register_buffer("now", torch.tensor(-1))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Thirds:
    """Three stages, towards grey pictures."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD([model.get_parameter("network.tail.weight")], 1.0)

    def lead(self, model: nn.Module, share: float) -> bool:
        now = model.get_buffer("now")
        due = self.stage(share)[0]
        if int(now) == due:
            return False
        now.fill_(due)
        return True

    def stage(self, share: float) -> tuple[int, float]:
        stage = min(int(3 * share), 2)
        return stage, 3 * share - stage

    def is_complete(self, model: nn.Module) -> bool:
        return int(model.get_buffer("now")) == 2

    def batch_of(self, step: int) -> int:
        return step // 2

    def errors(self, given: Tensor, restored: Tensor, batch: int) -> Tensor:
        assert given.shape[1] == 1
        assert batch >= 0
        return (restored - 0.5).square().flatten(1).mean(dim=1) + 1e-9


def guided(folder: Path, **changes: Any) -> Counting:
    model = Counting()
    folder.mkdir()
    settings = tiny_settings(steps=30, validate_every=5, warmup_steps=0)
    options = {"pattern": KODAK_CFA, "folder": folder, "guide": Thirds(), **changes}
    train(model, tiny_patches(), validation(), settings, **options)
    return model


def test_what_is_not_complete_is_not_validated(tmp_path: Path) -> None:
    seen: list[int] = []
    guided(tmp_path / "run", on_better=lambda model, _point: seen.append(int(model.now)))
    assert set(seen) == {2}
    assert [p["step"] for p in saved_run(tmp_path / "run")["curve"]] == [25, 30]
    # The twin: a run without a guide is validated all the way.
    guided(tmp_path / "alone", guide=None)
    assert [p["step"] for p in saved_run(tmp_path / "alone")["curve"]] == [5, 10, 15, 20, 25, 30]


def test_the_outputs_approach_what_the_guide_wants(tmp_path: Path) -> None:
    model = guided(tmp_path / "run").eval()
    with torch.no_grad():
        mosaic = torch.rand(2, 1, 32, 32)
        found = float((model(mosaic) - 0.5).square().mean())
        other = float((tiny_net().eval()(mosaic) - 0.5).square().mean())
    assert found < 0.8 * other


class Keeping(Thirds):
    """Keeps what it is asked about, by the batch."""

    def __init__(self) -> None:
        self.given: dict[int, list[Tensor]] = {}

    def errors(self, given: Tensor, restored: Tensor, batch: int) -> Tensor:
        self.given.setdefault(batch, []).append(given.detach().clone())
        return super().errors(given, restored, batch)


def test_a_batch_that_comes_again_has_the_same_inputs(tmp_path: Path) -> None:
    guide = Keeping()
    guided(tmp_path / "run", guide=guide)
    assert list(guide.given) == list(range(15))
    # The last phase, of larger patches, begins between the two of one batch.
    twice = [(one, again) for one, again in guide.given.values() if one.shape == again.shape]
    assert len(twice) == 14
    assert all(torch.equal(one, again) for one, again in twice)
    assert len({float(one.mean()) for one, _ in guide.given.values()}) == 15


def test_the_learning_rate_falls_in_each_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    advance = TrainingRun.advance

    def watched(run: TrainingRun, patches: Any) -> None:
        advance(run, patches)
        rates.append(run.learning_rate)

    monkeypatch.setattr(TrainingRun, "advance", watched)
    guided(tmp_path / "run")
    assert len(rates) == 30
    for stage in (rates[:10], rates[10:20], rates[20:]):
        assert stage == sorted(stage, reverse=True)
        assert stage[-1] < 0.1 * stage[0]
        assert stage[0] == pytest.approx(rates[0])


def test_the_guide_says_what_moves_its_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[float, float]] = []
    step = torch.optim.SGD.step

    def watched(optimizer: torch.optim.SGD) -> None:
        (weight,), rate = optimizer.param_groups[0]["params"], optimizer.param_groups[0]["lr"]
        before = weight.detach().clone()
        step(optimizer)
        torch.testing.assert_close(weight.detach(), before - rate * weight.grad)
        steps.append((rate, float((weight.detach() - before).abs().max())))

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    guided(tmp_path / "run")
    assert len(steps) == 30
    assert all(moved > 0 for _, moved in steps)
    # The learning rate is the run's.
    assert steps[0][0] == pytest.approx(tiny_settings().learning_rate, rel=0.01)
    # The twin: AdamW for everything leaves it no part.
    steps.clear()
    (tmp_path / "adamw").mkdir()
    train(
        Counting(),
        tiny_patches(),
        validation(),
        tiny_settings(steps=3, optimizer="adamw"),
        pattern=KODAK_CFA,
        folder=tmp_path / "adamw",
        guide=Thirds(),
    )
    assert steps == []


def test_the_mean_begins_anew_with_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart: list[float] = []
    lead = TrainingRun.lead

    def watched(run: TrainingRun, share: float) -> None:
        before = int(run.model.get_buffer("now"))
        lead(run, share)
        if int(run.model.get_buffer("now")) != before:
            pairs = zip(run.averaged.parameters(), run.model.parameters(), strict=True)
            apart.append(max(float((a - b).detach().abs().max()) for a, b in pairs))

    monkeypatch.setattr(TrainingRun, "lead", watched)
    guided(tmp_path / "run")
    assert apart == [0.0, 0.0, 0.0]


def test_a_change_that_nobody_had_time_for_is_made_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run by time may be over before its last stage has begun."""
    monkeypatch.setattr(TrainingRun, "share", lambda run: 0.5 if run.step < 3 else 1.0)
    model = guided(tmp_path / "run")
    assert int(model.now) == 2
    assert [p["step"] for p in saved_run(tmp_path / "run")["curve"]] == [3]
