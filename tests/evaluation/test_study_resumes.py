"""A study is the same study however often it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from study_kit import (
    JOBS,
    request,
)

from quantisp.evaluation import (
    StudyOutcome,
    StudyPicture,
    StudyProgress,
    networks,
    run_study,
    study,
)

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


class Killed(BaseException):
    pass


def kill_after(jobs: int) -> Callable[[StudyProgress], None]:
    left = [jobs]

    def count(_progress: StudyProgress) -> None:
        left[0] -= 1
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
