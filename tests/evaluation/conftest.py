"""One thread, for the networks are too small for two; and the study that is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from study_kit import request, surveyed, write_pictures
from torch import Tensor

from quantisp.evaluation import Measurement, StudyOutcome, StudyPicture, measure, run_study, study


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPicture, ...]:
    return surveyed(write_pictures(tmp_path_factory.mktemp("data") / "pictures"))


@pytest.fixture(scope="session")
def straight(
    pictures: tuple[StudyPicture, ...], tmp_path_factory: pytest.TempPathFactory
) -> StudyOutcome:
    """Never stopped."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    outcome = run_study(
        request(pictures), tmp_path_factory.mktemp("straight"), device=torch.device("cpu")
    )
    torch.set_num_threads(threads)
    return outcome


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The widths in px of what was measured."""
    widths: list[int] = []

    def counted(restored: Tensor, *others: Tensor) -> Measurement:
        widths.append(restored.shape[-1])
        return measure(restored, *others)

    monkeypatch.setattr(study, "measure", counted)
    return widths
