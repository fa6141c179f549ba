"""A study is the same study however often it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from study_kit import JOBS, KODAK_CFA, request, truth
from torch import nn

from quantisp.cfa import mosaic
from quantisp.evaluation import (
    StudyOutcome,
    StudyPicture,
    StudyProgress,
    StudyRequest,
    networks,
    run_study,
    study,
)
from quantisp.quantization import Plan, QuantizedModel
from quantisp.records import Setting

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


class Killed(BaseException):
    pass


def kill_after(jobs: int, but: str = "nothing") -> Callable[[StudyProgress], None]:
    left = [jobs]

    def count(progress: StudyProgress) -> None:
        left[0] -= but not in progress.doing
        if left[0] == 0:
            raise Killed

    return count


@pytest.mark.parametrize("finished", [1, 2, 3, 4, 8, 11, 12])
def test_stopped_between_jobs(
    pictures: tuple[StudyPicture, ...],
    straight: StudyOutcome,
    tmp_path: Path,
    measured: list[int],
    finished: int,
) -> None:
    with pytest.raises(Killed):
        run_study(request(pictures), tmp_path, device=CPU, on_progress=kill_after(finished))
    assert len(measured) == finished
    again = run_study(request(pictures), tmp_path, device=CPU)
    assert len(measured) == JOBS
    assert again.result.to_json() == straight.result.to_json()
    assert again.result.to_csv() == straight.result.to_csv()
    assert again.crops == straight.crops


STAGES = ["load_sample", "restored_sample", "measure", "quantize", "cut_crops"]


@pytest.mark.parametrize("stage", STAGES)
def test_stopped_within_a_job(
    pictures: tuple[StudyPicture, ...],
    straight: StudyOutcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """Calls 1, 3, 6, 10 and so on die: each time it gets a little further."""
    module = networks if stage == "quantize" else study
    genuine, calls, deaths = getattr(module, stage), 0, 0

    def dies(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if (8 * calls + 1) ** 0.5 % 2 == 1:
            raise Killed
        return genuine(*arguments, **options)

    monkeypatch.setattr(module, stage, dies)
    while True:
        try:
            outcome = run_study(request(pictures), tmp_path, device=CPU)
            break
        except Killed:
            deaths += 1
    assert deaths >= {"quantize": 2, "cut_crops": 1}.get(stage, 4)
    assert outcome.result.to_json() == straight.result.to_json()
    assert outcome.crops == straight.crops


def test_a_kill_loses_only_the_job_in_hand(
    pictures: tuple[StudyPicture, ...], tmp_path: Path, measured: list[int]
) -> None:
    for finished in range(1, JOBS + 1):
        with pytest.raises(Killed):
            run_study(request(pictures), tmp_path, device=CPU, on_progress=kill_after(1))
        assert len(measured) == finished
    run_study(request(pictures), tmp_path, device=CPU)
    assert len(measured) == JOBS


def test_a_line_that_a_kill_tore_is_measured_again(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome, tmp_path: Path, measured: list[int]
) -> None:
    with pytest.raises(Killed):
        run_study(request(pictures), tmp_path, device=CPU, on_progress=kill_after(6))
    with (tmp_path / "jobs.jsonl").open("r+b") as file:
        file.truncate((tmp_path / "jobs.jsonl").stat().st_size - 20)
    again = run_study(request(pictures), tmp_path, device=CPU)
    assert len(measured) == JOBS + 1
    assert again.result.to_json() == straight.result.to_json()


def test_a_lost_float_output_is_made_again(
    pictures: tuple[StudyPicture, ...], straight: StudyOutcome, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        run_study(request(pictures), tmp_path, device=CPU, on_progress=kill_after(7))
    shutil.rmtree(tmp_path / ".float")
    again = run_study(request(pictures), tmp_path, device=CPU)
    assert again.result.to_json() == straight.result.to_json()


LOOKS = tuple(Setting(method="gptq", granularity="channel", weight_bits=bits) for bits in (4, 6))


def looking(pictures: tuple[StudyPicture, ...], **changes: Any) -> StudyRequest:
    """A study of methods that look at inputs."""
    inputs = [mosaic(truth(seed, 32, 32), KODAK_CFA) for seed in range(40, 44)]
    return request(pictures, settings=LOOKS, calibration=inputs, **changes)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The widths that were rounded."""
    genuine = networks.quantize
    widths: list[int | None] = []

    def counted(model: nn.Module, plan: Plan, *others: Any, **options: Any) -> QuantizedModel:
        widths.append(plan.default.weight_bits)
        return genuine(model, plan, *others, **options)

    monkeypatch.setattr(networks, "quantize", counted)
    return widths


def test_what_was_rounded_is_not_rounded_again(
    pictures: tuple[StudyPicture, ...], tmp_path: Path, rounded: list[int | None]
) -> None:
    """Neither after a kill within the pictures, nor for the crops of a study that is done."""
    straight = run_study(looking(pictures), tmp_path / "straight", device=CPU)
    assert rounded == [4, 6]
    for _ in range(len(LOOKS) * len(pictures)):
        with pytest.raises(Killed):
            run_study(
                looking(pictures),
                tmp_path / "killed",
                device=CPU,
                on_progress=kill_after(1, "rounding"),
            )
    found = [run_study(looking(pictures), tmp_path / "killed", device=CPU) for _ in range(2)]
    assert rounded == [4, 6, 4, 6]
    for outcome in found:
        assert outcome.result.to_json() == straight.result.to_json()
        assert outcome.crops == straight.crops
    files = sorted(path.name for path in (tmp_path / "killed" / "networks").iterdir())
    assert files == ["gptq-channel-4-bits.safetensors", "gptq-channel-6-bits.safetensors"]


def test_a_kill_while_a_network_is_rounded_loses_the_layer_in_hand(
    pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    straight = run_study(looking(pictures), tmp_path / "straight", device=CPU)
    kept = tmp_path / "killed" / "networks"
    seen: list[str] = []

    def twice(progress: StudyProgress) -> None:
        seen.append(progress.doing)
        if seen.count(progress.doing) == 1 and "rounding" in progress.doing:
            raise Killed

    kills = 0
    while True:
        try:
            outcome = run_study(
                looking(pictures), tmp_path / "killed", device=CPU, on_progress=twice
            )
            break
        except Killed:
            kills += 1
            assert (kept / ".gptq-channel-4-bits").exists() or (
                kept / ".gptq-channel-6-bits"
            ).exists()
    assert kills > 10
    assert outcome.result.to_json() == straight.result.to_json()
    assert outcome.crops == straight.crops
    assert sorted(path.name for path in kept.iterdir()) == [
        "gptq-channel-4-bits.safetensors",
        "gptq-channel-6-bits.safetensors",
    ]


def test_progress_counts_no_rounding_that_is_done(
    pictures: tuple[StudyPicture, ...], tmp_path: Path
) -> None:
    """The last word of a study that went on is that all is done."""
    with pytest.raises(Killed):
        run_study(looking(pictures), tmp_path, device=CPU, on_progress=kill_after(8, "rounding"))
    seen: list[StudyProgress] = []
    run_study(looking(pictures), tmp_path, device=CPU, on_progress=seen.append)
    assert not any("rounding" in progress.doing for progress in seen)
    assert seen[-1].done_px == seen[-1].total_px


@pytest.mark.parametrize("harm", ["torn", "of another plan", "of another network", "gone"])
def test_a_kept_network_that_is_not_the_right_one_is_rounded_again(
    pictures: tuple[StudyPicture, ...], tmp_path: Path, rounded: list[int | None], harm: str
) -> None:
    straight = run_study(looking(pictures), tmp_path / "straight", device=CPU)
    shutil.copytree(tmp_path / "straight", tmp_path / "harmed")
    four, six = (
        tmp_path / "harmed/networks" / f"gptq-channel-{n}-bits.safetensors" for n in (4, 6)
    )
    whole = {name: value.clone() for name, value in load_file(four).items()}
    if harm == "torn":
        four.write_bytes(four.read_bytes()[:-100])
    elif harm == "of another plan":
        shutil.copy(six, four)
    elif harm == "of another network":
        save_file({"codes/x": torch.zeros(3)}, four)
    else:
        four.unlink()
    again = run_study(looking(pictures), tmp_path / "harmed", device=CPU)
    assert rounded == [4, 6, 4]
    assert again.crops == straight.crops
    found = load_file(four)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)
