"""The neighbourhood that an output pixel depends on, found by running the network."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantisp.inference.interface import Interface

__all__ = ["ReceptiveField", "receptive_field"]

# Networks that fold or reduce by up to this many px are probed at every phase.
PHASES_PX = 16
LONGEST_STRIP_PX = 4096


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """How far the input of an output pixel reaches, in input px, at the worst phase of the fold.

    ``stride_px`` is the step by which a picture may be shifted with the same phase.
    """

    above_px: int
    below_px: int
    left_px: int
    right_px: int
    stride_px: int

    @property
    def height_px(self) -> int:
        """Rows that one output pixel depends on."""
        return self.above_px + 1 + self.below_px

    @property
    def width_px(self) -> int:
        """Columns that one output pixel depends on."""
        return self.left_px + 1 + self.right_px


def receptive_field(model: nn.Module, interface: Interface) -> ReceptiveField | None:
    """The receptive field of a network, or None if it is not bounded or cannot be found.

    A NaN at one input pixel turns every output that depends on it into NaN, whatever the weights
    are; the furthest such output, over all phases, gives the reach.

    Args:
        model: the network. It is not changed.
        interface: what it takes and gives.
    """
    stride = math.lcm(PHASES_PX, *interface.period)
    # Here torch convolves directly. Where a backend uses Winograd's transforms instead, they carry
    # the NaN a few px further: the field is then too large, never too small.
    probe = copy.deepcopy(model).to("cpu").eval()
    try:
        with torch.inference_mode():
            horizontal = _reach(probe, interface, stride, vertical=False)
            vertical = _reach(probe, interface, stride, vertical=True)
    # A network of somebody else may refuse narrow strips in any way; the whole picture is safe.
    except Exception:  # noqa: BLE001
        return None
    if horizontal is None or vertical is None:
        return None
    return ReceptiveField(
        above_px=vertical[0],
        below_px=vertical[1],
        left_px=horizontal[0],
        right_px=horizontal[1],
        stride_px=stride,
    )


def _reach(
    model: nn.Module, interface: Interface, stride: int, *, vertical: bool
) -> tuple[int, int] | None:
    length = 16 * stride
    while length <= LONGEST_STRIP_PX:
        affected = _affected(model, interface, length, stride, vertical)
        if all(first > 0 and last < length - 1 for first, last in affected):
            centre = length // 2
            # An output d px after an input has that input d px before it.
            before = max(last - (centre + phase) for phase, (_, last) in enumerate(affected))
            after = max((centre + phase) - first for phase, (first, _) in enumerate(affected))
            return before, after
        length *= 2
    return None


def _affected(
    model: nn.Module, interface: Interface, length: int, stride: int, vertical: bool
) -> list[tuple[int, int]]:
    """The input px above the first and last output that a NaN in the middle touches, by phase."""
    strips = torch.zeros(stride, interface.channels, stride, length)
    for phase in range(stride):
        strips[phase, :, :, length // 2 + phase] = math.nan
    outputs: Tensor = model(strips.mT if vertical else strips)
    touched = (outputs.mT if vertical else outputs).isnan().any(dim=2).any(dim=1)
    # Inputs that nothing depends on do not count.
    factor = interface.factor
    return [
        (int(row.nonzero()[0]) // factor, int(row.nonzero()[-1]) // factor)
        for row in touched
        if row.any()
    ]
