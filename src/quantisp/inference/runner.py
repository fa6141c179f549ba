"""Running a restoration network on whole pictures and on windows of them."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.errors import ModelError, SettingError
from quantisp.inference.interface import Interface
from quantisp.inference.memory import keep_freed_memory
from quantisp.inference.receptive_field import ReceptiveField

__all__ = [
    "Window",
    "check_network",
    "find_device",
    "find_interface",
    "prepare",
    "restore",
    "restore_window",
]

# A multiple of every usual stride.
PROBE_PX = 96
# What is not a multiple of a network's stride fails at any size: a small one tells.
STRIDE_PX = 64
SMALL_PX = 192


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


def check_network(
    model: nn.Module,
    device: torch.device,
    interface: Interface | None = None,
    sizes: Collection[tuple[int, int]] = (),
    *,
    exact: bool = False,
) -> None:
    """Find out, before long work, whether a network does what it is asked to.

    Args:
        model: the network. It is not changed.
        device: where it is to run.
        interface: what it takes and gives; None is a mosaic, restored at its own size.
        sizes: height and width of inputs that it is to take, in px. Each is stood for by a
            smaller one that leaves the same remainder under every stride that divides 64.
        exact: try the sizes themselves, and no other.

    Raises:
        ModelError: its weights are not float32, it fails on an input, it does not give RGB of
            the expected size, or it gives NaN.
    """
    other = {str(p.dtype) for p in model.parameters() if p.dtype != torch.float32}
    if other:
        raise ModelError(
            f"expected float32 weights, {type(model).__name__} has {', '.join(sorted(other))}: "
            "call .float() on it"
        )
    network = prepare(copy.deepcopy(model), device)
    others = [(PROBE_PX, PROBE_PX), *(_stand_in(*size) for size in sizes)]
    for size in sorted(sizes) if exact else dict.fromkeys(others):
        _check_output(network, interface or Interface(), size)


def find_interface(
    model: nn.Module,
    pattern: CFAPattern | None,
    *,
    channels: int = 3,
    size: tuple[int, int] = (PROBE_PX, PROBE_PX),
) -> Interface:
    """What a network takes and gives; one without a CFA is tried out.

    Args:
        model: the network. It is not changed.
        pattern: its CFA, or None.
        channels: of the input of one without a CFA.
        size: height and width of the input to try, in px.

    Raises:
        ModelError: it gives something else than RGB, a whole number of times larger.
    """
    if pattern is not None:
        return Interface.of_mosaic(pattern)
    probe = torch.full((1, channels, *size), 0.5)
    try:
        shape = restore(prepare(copy.deepcopy(model), torch.device("cpu")), probe).shape
    # A network of somebody else may fail in any way.
    except Exception as error:
        raise ModelError(
            f"expected a network that restores an input {tuple(probe.shape)}, for it names no CFA "
            f"as .pattern, {type(model).__name__} fails ({' '.join(str(error).split())}): set "
            "model.pattern, or mend its forward"
        ) from error
    interface = Interface(channels=channels, factor=max(shape[-1] // size[1], 1))
    if tuple(shape) != interface.output_shape(*size):
        raise ModelError(
            f"expected RGB a whole number of times larger than {size[0]}x{size[1]} px from "
            f"{type(model).__name__}, found {tuple(shape)}: mend its forward"
        )
    return interface


def _stand_in(height: int, width: int) -> tuple[int, int]:
    fewer = [
        px if px < SMALL_PX else SMALL_PX - STRIDE_PX + px % STRIDE_PX for px in (height, width)
    ]
    return fewer[0], fewer[1]


def _check_output(network: nn.Module, interface: Interface, size: tuple[int, int]) -> None:
    probe = torch.full((1, interface.channels, *size), 0.5)
    taken, name = tuple(probe.shape), type(network).__name__
    try:
        restored = restore(network, probe)
    # A network of somebody else may fail in any way.
    except Exception as error:
        raise ModelError(
            f"expected a network that restores an input {taken}, {name} fails on it "
            f"({' '.join(str(error).split())}): mend its forward"
        ) from error
    if tuple(restored.shape) != interface.output_shape(*size):
        raise ModelError(
            f"expected RGB {interface.output_shape(*size)} from {name} for an input {taken}, found "
            f"{tuple(restored.shape)}: mend its forward, or name another degradation"
        )
    if bool(torch.isnan(restored).any()):
        raise ModelError(
            f"expected numbers from {name}, found NaN for a grey input {taken}: check its weights"
        )


@torch.inference_mode()
def restore(model: nn.Module, picture: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 h2 w2"]:
    """RGB of a whole input, not clipped, on the CPU in the usual layout.

    Args:
        model: as :func:`prepare` returns it.
        picture: a mosaic or RGB, on any device.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs = picture.to(device=device, memory_format=torch.channels_last)
    # A caller may be inside autocast, whose 8 significant bits would hide the effect of more.
    with torch.autocast(device.type, enabled=False):
        restored: Tensor = model(inputs)
    return restored.to(device="cpu", memory_format=torch.contiguous_format)


def restore_window(
    model: nn.Module,
    picture: Float[Tensor, "1 c h w"],
    window: Window,
    *,
    field: ReceptiveField | None,
    factor: int = 1,
) -> Float[Tensor, "1 3 h2 w2"]:
    """RGB of a window, equal to the same window of the whole picture up to float32 rounding.

    Args:
        model: as :func:`prepare` returns it.
        picture: the whole input.
        window: within the output, in px of the output.
        field: what an output pixel depends on; None is the whole picture.
        factor: how many times larger than the input the output is.
    """
    height, width = picture.shape[2:]
    if field is None:
        part, top, left = picture, 0, 0
    else:
        # The part begins on a whole stride, so that the network meets it in the same phase.
        first, last = window.top // factor, -(-(window.top + window.height) // factor)
        top = max(first - field.above_px, 0) // field.stride_px * field.stride_px
        bottom = min(last + field.below_px, height)
        first, last = window.left // factor, -(-(window.left + window.width) // factor)
        left = max(first - field.left_px, 0) // field.stride_px * field.stride_px
        right = min(last + field.right_px, width)
        part = picture[:, :, top:bottom, left:right]
    whole = restore(model, part)
    y, x = window.top - factor * top, window.left - factor * left
    return whole[:, :, y : y + window.height, x : x + window.width]
