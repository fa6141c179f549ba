"""A training step recorded once as a CUDA graph, and replayed.

A step is some thousand operations, and a processor takes longer to ask for them one by one than an
accelerator takes to do them. A recorded step is asked for as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

__all__ = ["RecordedStep", "RecordedSteps"]

# Steps that are taken one operation at a time, while libraries choose their algorithms and
# optimizers make their moments.
WARM_UP = 3


Step = Callable[[Tensor, Tensor], Tensor]


class RecordedSteps:
    """Takes steps of one kind after the other; the record of the last kind is kept."""

    def __init__(self) -> None:
        self._of: dict[Hashable, RecordedStep] = {}

    def take(self, kind: Hashable, step: Step, given: Tensor, target: Tensor) -> Tensor:
        """What ``step`` does; steps of one kind do the same, as :class:`RecordedStep` says."""
        if kind not in self._of:
            # The record of another kind would keep its memory.
            self._of = {kind: RecordedStep(step)}
        return self._of[kind](given, target)

    def forget(self) -> None:
        """Record anew, for tensors that steps change are others now."""
        self._of.clear()


class RecordedStep:
    """Does what ``step`` does: the first times by itself, then by replaying what it did.

    Args:
        step: takes two tensors on one CUDA device, of the same shapes each time, changes weights in
            place, and gives a tensor; the same operations each time, and nothing that the
            processor has to wait for.

    Source: the ``torch.cuda.graph`` of PyTorch, which says what may be recorded.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._taken = 0
        self._aside = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()
        self._is_recorded = False

    def __call__(self, given: Tensor, target: Tensor) -> Tensor:
        """Take the step."""
        if self._taken < WARM_UP:
            return self._take(given, target)
        if not self._is_recorded:
            self._record(given, target)
        self._given.copy_(given)
        self._target.copy_(target)
        self._graph.replay()
        # The next replay overwrites it.
        return self._result.clone()

    def _take(self, given: Tensor, target: Tensor) -> Tensor:
        """Not on the stream that records later on, as PyTorch asks for."""
        self._taken += 1
        now = torch.cuda.current_stream()
        self._aside.wait_stream(now)
        with torch.cuda.stream(self._aside):
            result = self._step(given, target)
        now.wait_stream(self._aside)
        return result.clone()

    def _record(self, given: Tensor, target: Tensor) -> None:
        self._given, self._target = given.clone(), target.clone()
        with torch.cuda.graph(self._graph):
            self._result = self._step(self._given, self._target)
        self._is_recorded = True
