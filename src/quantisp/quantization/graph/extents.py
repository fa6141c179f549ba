"""Along one axis of the picture: what a node's rows are made of, and which sizes a graph takes.

A row of a node depends on the rows ``first`` to ``last`` of its input, both of which rise with it.
Rows beyond the edge, which padding stands for, count like any others. "Rows" are columns, too:
``across`` says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from quantisp.errors import ModelError
from quantisp.quantization.graph.nodes import (
    Concat,
    Conv,
    ConvTranspose,
    Graph,
    Linear,
    Mask,
    Node,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Resize,
    Slice,
)

__all__ = ["Axis", "Span", "reach_px", "stride_px"]

Span = tuple[np.ndarray, np.ndarray]
"""The first and the last row that some rows depend on."""

Kernels = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Rows or columns of a graph.

    Args:
        graph: the network.
        kernels: the shape of each layer's weight.
        across: columns, not rows.
    """

    graph: Graph
    kernels: Kernels
    across: bool = False

    def scales(self) -> dict[str, Fraction]:
        """How many px of the input one row of each node stands for."""
        found: dict[str, Fraction] = {}
        for node in self.graph.nodes:
            before = found[node.inputs[0]] if node.inputs else Fraction(1)
            found[node.name] = before * self._step(node)
        return found

    def places(self) -> dict[str, int]:
        """Which dimension of each node's tensor the rows are, of four."""
        found: dict[str, int] = {}
        for node in self.graph.nodes:
            place = found[node.inputs[0]] if node.inputs else 2 + self.across
            if isinstance(node.operation, Permute):
                place = [axis % len(node.operation.axes) for axis in node.operation.axes].index(
                    place
                )
            found[node.name] = place
        return found

    def spans(self, node: Node, place: int, rows: Span) -> Span:
        """The rows of a node's inputs that some of its rows depend on.

        Args:
            node: which one.
            place: of the rows, in what it takes.
            rows: of what it gives.

        Raises:
            ModelError: there is no bound.
        """
        first, last = rows
        match node.operation:
            case Conv() as conv:
                before, reach, stride = self._convolution(conv)
                return first * stride - before, last * stride - before + reach
            case ConvTranspose() as conv:
                a = int(self.across)
                size = self.kernels[conv.layer][2 + a]
                stride, padding = conv.stride[a], conv.padding[a]
                reach = conv.dilation[a] * (size - 1)
                return -((reach - first - padding) // stride), (last + padding) // stride
            case PixelShuffle(factor=r):
                return first // r, last // r
            case PixelUnshuffle(factor=r):
                return first * r, last * r + r - 1
            case Resize(factors=factors):
                factor = factors[self.across]
                return first // factor, last // factor
            case Pad() as pad:
                return self._padded(node, pad, rows)
            case _:
                return _along(node, place, rows)

    def _convolution(self, conv: Conv) -> tuple[int, int, int]:
        a = int(self.across)
        reach = conv.dilation[a] * (self.kernels[conv.layer][2 + a] - 1)
        if isinstance(conv.padding, str):
            before = reach // 2 if conv.padding == "same" else 0
        else:
            before = conv.padding[a]
        return before, reach, conv.stride[a]

    def _padded(self, node: Node, pad: Pad, rows: Span) -> Span:
        before = pad.amounts[0 if self.across else 2]
        if pad.mode == "circular" or not isinstance(before, int):
            raise _unbounded(node)
        return rows[0] - before, rows[1] - before

    def _step(self, node: Node) -> Fraction:
        a = int(self.across)
        operation: Any = node.operation
        match operation:
            case Conv():
                return Fraction(operation.stride[a])
            case ConvTranspose():
                return Fraction(1, operation.stride[a])
            case PixelShuffle():
                return Fraction(1, operation.factor)
            case PixelUnshuffle():
                return Fraction(operation.factor)
            case Resize():
                return Fraction(1, operation.factors[a])
            case Slice() if operation.step > 1:
                return Fraction(operation.step)
            case _:
                return Fraction(1)


def _along(node: Node, place: int, rows: Span) -> Span:
    """Of what treats every dimension alike."""
    match node.operation:
        case Slice(axis=axis, start=start, step=step) if axis % 4 == place:
            if not isinstance(start, int) or start < 0:
                raise _unbounded(node)
            return rows[0] * step + start, rows[1] * step + start
        case Concat(axis=axis) if axis % 4 == place:
            raise _unbounded(node)
        case Linear() if place == 3:
            raise _unbounded(node)
        case _:
            return rows


def reach_px(axis: Axis, stride: int) -> tuple[int, int]:
    """How many px before and after its own an output px depends on, at the worst phase.

    Args:
        axis: rows or columns.
        stride: after how many px of the input the phase repeats.

    Raises:
        ModelError: there is no bound.
    """
    graph = axis.graph
    scale, places = axis.scales()[graph.output], axis.places()
    count = max(int(stride / scale), 1)
    rows = np.arange(count)
    needed: dict[str, Span] = {graph.output: (rows, rows)}
    for node in reversed(graph.nodes):
        if node.name not in needed:
            continue
        for name in node.inputs:
            first, last = axis.spans(node, places[name], needed[node.name])
            if name in needed:
                first = np.minimum(first, needed[name][0])
                last = np.maximum(last, needed[name][1])
            needed[name] = first, last
    first, last = needed[graph.nodes[0].name]
    own = np.array([math.floor(row * scale) for row in range(count)])
    return max(int((own - first).max()), 0), max(int((last - own).max()), 0)


def stride_px(graph: Graph, kernels: Kernels) -> int:
    """The step of the input, down and across, after which the graph treats px alike."""
    found = 1
    for across in (False, True):
        axis = Axis(graph=graph, kernels=kernels, across=across)
        scales = axis.scales()
        for node in graph.nodes:
            scale, period = scales[node.name], 1
            if isinstance(node.operation, Mask):
                period = node.operation.tile.shape[1 + across]
            found = math.lcm(found, (scale * period).numerator)
    return found


def _unbounded(node: Node) -> ModelError:
    return ModelError(
        f"expected rows that depend on a bounded number of others, {node.name!r} at {node.where} "
        "needs all of them: run the whole picture at once"
    )
