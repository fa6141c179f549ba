"""Running a restoration network on whole pictures and on windows of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import ModelError, SettingError
from quantisp.inference.memory import keep_freed_memory
from quantisp.inference.receptive_field import ReceptiveField

__all__ = ["Window", "check_network", "find_device", "prepare", "restore", "restore_window"]


# A multiple of every usual stride.
PROBE_PX = 96


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rectangle of a picture, in px."""

    top: int
    left: int
    height: int
    width: int


def find_device(name: str) -> torch.device:
    """The device called ``name``: ``cpu``, ``cuda``, ``cuda:1`` and so on, or ``auto``.

    Raises:
        SettingError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # The value is fetched, for the meta device computes nothing.
        torch.zeros(1, device=device).item()
    # torch raises RuntimeError for unknown names and AssertionError for devices not built in.
    except (RuntimeError, AssertionError, ImportError) as error:
        raise SettingError(
            f"expected a device such as cpu or cuda, {name!r} cannot be used here "
            f"({str(error).splitlines()[0][:80]}): pass --device cpu"
        ) from error
    return device


def prepare(model: nn.Module, device: torch.device) -> nn.Module:
    """The model in evaluation mode on ``device``, in the memory layout that convolutions favour.

    Full float32: TF32, which carries 11 significant bits and would hide the effect of more, is
    switched off for the process.
    """
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return model.eval().to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def check_network(model: nn.Module, device: torch.device) -> None:
    """Find out, before long work, whether a network does what it is asked to.

    Raises:
        ModelError: its weights are not float32, it fails on a mosaic of 96x96 px, or it does not
            give RGB of that size.
    """
    other = {str(p.dtype) for p in model.parameters() if p.dtype != torch.float32}
    if other:
        raise ModelError(
            f"expected float32 weights, {type(model).__name__} has {', '.join(sorted(other))}: "
            "call .float() on it"
        )
    probe = torch.full((1, 1, PROBE_PX, PROBE_PX), 0.5)
    try:
        shape = tuple(restore(prepare(copy.deepcopy(model), device), probe).shape)
    # A network of somebody else may fail in any way.
    except Exception as error:
        raise ModelError(
            f"expected a network that restores a mosaic (1, 1, {PROBE_PX}, {PROBE_PX}), "
            f"{type(model).__name__} fails on it ({' '.join(str(error).split())}): mend its forward"
        ) from error
    if shape != (1, 3, PROBE_PX, PROBE_PX):
        raise ModelError(
            f"expected RGB (1, 3, {PROBE_PX}, {PROBE_PX}) from {type(model).__name__}, found "
            f"{shape}: mend its forward"
        )


@torch.inference_mode()
def restore(model: nn.Module, mosaic: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 3 h w"]:
    """RGB of a whole mosaic, not clipped, on the CPU in the usual layout.

    Args:
        model: as :func:`prepare` returns it.
        mosaic: on any device.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = mosaic.to(device=device, memory_format=torch.channels_last)
    # A caller may be inside autocast, whose 8 significant bits would hide the effect of more.
    with torch.autocast(device.type, enabled=False):
        restored: Tensor = model(inputs)
    return restored.to(device="cpu", memory_format=torch.contiguous_format)


def restore_window(
    model: nn.Module,
    mosaic: Float[Tensor, "1 1 h w"],
    window: Window,
    *,
    field: ReceptiveField | None,
) -> Float[Tensor, "1 3 h2 w2"]:
    """RGB of a window, equal to the same window of the whole picture up to float32 rounding.

    Args:
        model: as :func:`prepare` returns it.
        mosaic: the whole mosaic.
        window: within the mosaic.
        field: what an output pixel depends on; None is the whole picture.
    """
    height, width = mosaic.shape[2:]
    if field is None:
        part, top, left = mosaic, 0, 0
    else:
        # The part begins on a whole stride, so that the network meets it in the same phase.
        top = max(window.top - field.above_px, 0) // field.stride_px * field.stride_px
        left = max(window.left - field.left_px, 0) // field.stride_px * field.stride_px
        bottom = min(window.top + window.height + field.below_px, height)
        right = min(window.left + window.width + field.right_px, width)
        part = mosaic[:, :, top:bottom, left:right]
    whole = restore(model, part)
    y, x = window.top - top, window.left - left
    return whole[:, :, y : y + window.height, x : x + window.width]
