"""A run whose network changes on its way: what a trainer asks of whoever changes it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn, optim

__all__ = ["Guide"]


@runtime_checkable
class Guide(Protocol):
    """Changes the network in stages, and says what its output is to be.

    Which of its layers are trained in bfloat16 is for such a network to say.
    """

    def optimizer(self, model: nn.Module) -> optim.Optimizer:
        """What moves some of its parameters in Muon's place; its ``lr`` are set for each step.

        Args:
            model: what is trained, where it is trained.
        """
        ...

    def lead(self, model: nn.Module, share: float) -> bool:
        """Make the changes that are due, and say whether there was one.

        What was changed is in the network's buffers: checkpoints, and the running mean, take it
        from there.

        Args:
            model: what is trained.
            share: of the run that is done, 0 to 1.
        """
        ...

    def stage(self, share: float) -> tuple[int, float]:
        """At a share of the run: the stage, from 0 on, and how much of it is done."""
        ...

    def is_complete(self, model: nn.Module) -> bool:
        """Whether no change is left: what was not, is not worth validating."""
        ...

    def batch_of(self, step: int) -> int:
        """The number of the batch that a step takes, from 0 on: one may come again."""
        ...

    def errors(self, given: Tensor, restored: Tensor, batch: int) -> Tensor:
        """Of the network's output for each input: above zero, and as small as it is good.

        Args:
            given: inputs, (n, …).
            restored: the outputs.
            batch: the number of the batch: one of the same number and size has the same inputs.
        """
        ...
