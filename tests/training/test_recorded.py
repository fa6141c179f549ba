"""Steps recorded as CUDA graphs; where there is no accelerator, with a stand-in that replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_kit import KODAK_CFA, tiny_net, tiny_patches, tiny_settings, validation

from quantisp.errors import SettingError
from quantisp.training import recorded, train
from quantisp.training.recorded import WARM_UP, RecordedSteps


class Cuda:
    """What of ``torch.cuda`` is used: a graph does again what was done while it recorded."""

    class Stream:
        def wait_stream(self, other: Any) -> None:
            pass

    class CUDAGraph:
        again: Callable[[], None]

        def replay(self) -> None:
            self.again()

    def current_stream(self) -> Any:
        return self.Stream()

    @contextmanager
    def stream(self, _stream: Any) -> Iterator[None]:
        yield

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.recording = graph
        yield
        self.recording = None


class Counter:
    """A step that changes its state, and what it was asked by whom."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.calls = 0
        self.total = torch.zeros(2)
        cuda.recording = None

    def __call__(self, given: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        result = torch.empty(2)

        def work() -> None:
            self.total.add_(given - target)
            result.copy_(self.total)

        if self.cuda.recording is None:
            work()
        else:
            self.cuda.recording.again = work
        return result


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    cuda = Cuda()
    monkeypatch.setattr(recorded.torch, "cuda", cuda)  # pyright: ignore
    return Counter(cuda)


@pytest.mark.unit
def test_replayed_steps_do_what_the_first_ones_did(counter: Counter) -> None:
    steps = RecordedSteps()
    expected = torch.zeros(2)
    given_back: list[Tensor] = []
    for number in range(3 * WARM_UP):
        given, target = torch.full((2,), float(number)), torch.ones(2)
        given_back.append(steps.take("first", counter, given, target))
        expected += given - target
        assert torch.equal(given_back[-1], expected)
    # Those of before were not overwritten.
    assert len({float(value[0]) for value in given_back}) > WARM_UP
    assert counter.calls == WARM_UP + 1


@pytest.mark.unit
def test_another_kind_is_recorded_anew_and_so_is_what_was_forgotten(counter: Counter) -> None:
    steps = RecordedSteps()
    one = torch.ones(2)
    for kind in ("first", "last", "last", "last", "last", "last"):
        steps.take(kind, counter, one, 0.0 * one)
    assert counter.calls == 1 + WARM_UP + 1
    steps.forget()
    steps.take("last", counter, one, 0.0 * one)
    assert counter.calls == 1 + WARM_UP + 2
    assert counter.total.tolist() == [7.0, 7.0]


@pytest.mark.unit
def test_a_cpu_records_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"expected one CUDA device.*found 1 of cpu"):
        train(
            tiny_net(),
            tiny_patches(),
            validation(),
            tiny_settings(),
            pattern=KODAK_CFA,
            folder=tmp_path,
            recorded=True,
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_cuda_device_a_recorded_run_is_like_another(tmp_path: Path) -> None:
    from quantisp.training.workers import Workers

    found: list[float] = []
    for is_recorded in (False, True):
        folder = tmp_path / str(is_recorded)
        folder.mkdir()
        curve = train(
            tiny_net(),
            tiny_patches(),
            validation(),
            tiny_settings(steps=60),
            pattern=KODAK_CFA,
            folder=folder,
            workers=Workers("cuda"),
            recorded=is_recorded,
        )
        found.append(curve[-1].psnr_db)
    assert found[1] == pytest.approx(found[0], abs=0.1)
