"""What parts of a network take and give while it runs, without a captured graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Call", "beside", "watch"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One call of a module, with copies of its tensors, for what follows may work in place.

    Args:
        taken: its only argument, or None if that was not one tensor.
        given: its result, or None if that was not one tensor.
    """

    taken: Tensor | None
    given: Tensor | None


class _Reached(Exception):  # noqa: N818
    """Everything that was asked for has been seen; the rest of the network need not run."""


@torch.no_grad()
def watch(
    network: nn.Module, names: Sequence[str], x: Tensor, *, calls: int | None = None
) -> dict[str, list[Call]]:
    """The calls of some modules while the network runs once, in the order of their first end.

    Args:
        network: as it is to run.
        names: of modules in it.
        x: the network's input, on any device.
        calls: how many there will be in all; then the rest of the network is left out.
    """
    seen: dict[str, list[Call]] = {}
    count = 0
    started: list[Tensor | None] = []

    def begin(_: nn.Module, args: tuple[object, ...], named: dict[str, object]) -> None:
        started.append(_alone((*args, *named.values())))

    hooks = []
    for name in names:

        def end(
            _: nn.Module,
            _args: tuple[object, ...],
            _named: dict[str, object],
            given: object,
            name: str = name,
        ) -> None:
            nonlocal count
            count += 1
            call = Call(taken=started.pop(), given=_alone((given,)))
            seen.setdefault(name, []).append(call)
            if count == calls:
                raise _Reached

        module = network.get_submodule(name)
        hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        hooks.append(module.register_forward_hook(end, with_kwargs=True))
    try:
        network(beside(network, x))
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def beside(network: nn.Module, x: Tensor) -> Tensor:
    """The input on the network's device."""
    return x.to(next(network.parameters(), x).device)


def _alone(values: tuple[object, ...]) -> Tensor | None:
    """The only tensor, copied."""
    (value,) = values if len(values) == 1 else (None,)
    return value.detach().clone() if isinstance(value, Tensor) else None
