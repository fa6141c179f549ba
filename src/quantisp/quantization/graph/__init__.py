"""One captured graph of a network: for activation quantizers, integer networks and exporters."""

from __future__ import annotations

from quantisp.quantization.graph.capture import (
    FixesSizes,
    PadsInside,
    capture,
    pad_inside,
    run_padded,
)
from quantisp.quantization.graph.execution import run_float
from quantisp.quantization.graph.nodes import Graph, Node

__all__ = [
    "FixesSizes",
    "Graph",
    "Node",
    "PadsInside",
    "capture",
    "pad_inside",
    "run_float",
    "run_padded",
]
