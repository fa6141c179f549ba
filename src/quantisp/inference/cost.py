"""What a network costs: parameters and multiplications, counted while it runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quantisp.inference.interface import Interface

__all__ = ["PROBE_PX", "LayerCost", "NetworkCost", "network_cost"]

# A multiple of every fold, so that nothing is padded; a power of two times three and five.
PROBE_PX = 240


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer: its kind, as torch names it, and its cost."""

    name: str
    kind: str
    parameters: int
    macs_per_px: float


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Multiply-accumulates per output pixel of convolutions and matrix products, and parameters."""

    parameters: int
    macs_per_px: float
    layers: tuple[LayerCost, ...]


def network_cost(
    model: nn.Module,
    interface: Interface | None = None,
    size: tuple[int, int] = (PROBE_PX, PROBE_PX),
) -> NetworkCost:
    """Count what ``model`` does to an input, by shapes alone.

    Args:
        model: the network. It is not changed.
        interface: what it takes and gives; None is a mosaic, restored at its own size.
        size: height and width of the input, in px.
    """
    interface = interface or Interface()
    pixels = interface.factor**2 * size[0] * size[1]
    probe = copy.deepcopy(model).to("meta").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        probe(torch.empty(1, interface.channels, *size, device="meta"))
    counts: Mapping[str, Mapping[Any, int]] = counter.get_flop_counts()
    root = type(probe).__name__
    leaves = [
        (name, module) for name, module in probe.named_modules() if not list(module.children())
    ]
    layers = tuple(
        LayerCost(
            name=name,
            kind=type(module).__name__,
            parameters=sum(p.numel() for p in module.parameters()),
            macs_per_px=_macs(counts.get(f"{root}.{name}" if name else root, {})) / pixels,
        )
        for name, module in leaves
        if any(True for _ in module.parameters())
    )
    return NetworkCost(
        parameters=sum(p.numel() for p in probe.parameters()),
        macs_per_px=_macs(counts.get("Global", {})) / pixels,
        layers=layers,
    )


def _macs(counts: Mapping[Any, int]) -> float:
    # torch counts a multiplication and an addition as two operations.
    return sum(counts.values()) / 2
