"""Number formats of training: float32, or bfloat16 where the hardware multiplies it fast."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.machine import multiplies_bfloat16

__all__ = ["autocast_context", "keep_in_float32", "resolve_precision"]

PRECISIONS = ("auto", "float32", "bfloat16")


def resolve_precision(wanted: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 where ``device`` has instructions for it.

    Raises:
        SettingError: no such precision.
    """
    if wanted not in PRECISIONS:
        raise SettingError(f"expected a precision of {', '.join(PRECISIONS)}, found {wanted!r}")
    if wanted != "auto":
        return wanted
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


def autocast_context(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context for a forward pass in ``precision``."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def keep_in_float32(model: nn.Module, device: torch.device) -> Generator[None]:
    """Within the context, the layers that ``model.float32_layers`` names ignore autocast.

    bfloat16 carries 8 significant bits, which is less than a picture has: a layer through which
    the picture itself passes would add an error of its own.
    """
    left: list[torch.autocast] = []

    def leave_autocast(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        left.append(torch.autocast(device.type, enabled=False))
        left[-1].__enter__()
        return tuple(value.float() for value in inputs)

    def return_to_autocast(_layer: nn.Module, _inputs: object, _output: object) -> None:
        left.pop().__exit__(None, None, None)

    names: tuple[str, ...] = getattr(model, "float32_layers", ())
    hooks = [model.get_submodule(name).register_forward_pre_hook(leave_autocast) for name in names]
    hooks += [
        model.get_submodule(name).register_forward_hook(return_to_autocast, always_call=True)
        for name in names
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
