"""How many rows of each tensor wait in line buffers, where a network runs row by row.

Every layer is a stage of its own. Time is counted in rows of the input. A row is computed when the
last row that it needs is there, and passes on to whoever needs it at that moment; a row that
somebody needs later waits. The output leaves at the pace of the input, so that its rows may wait,
too. What only moves values (shuffles, masks, concatenations, padding) stores nothing: it is another
way to read the tensor that was stored.

Where branches meet, one of them waits. A branch that is early may be computed as late as its users
allow, so that its input waits instead of its output; it is, wherever that takes fewer bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantisp.quantization.graph.extents import Axis, Span, reach_px, stride_px
from quantisp.quantization.graph.nodes import Graph, Node

__all__ = ["LineBuffers", "line_buffers"]

NEVER = float(1 << 40)
OUTPUT = ""


@dataclass(frozen=True, kw_only=True)
class LineBuffers:
    """Rows that wait, once a frame is under way.

    Args:
        rows: of each stored tensor, at the worst moment of a period.
        latency_rows: of the input before the first row of the output.
    """

    rows: Mapping[str, int]
    latency_rows: int


def line_buffers(
    graph: Graph, kernels: Mapping[str, tuple[int, ...]], row_bytes: Mapping[str, float]
) -> LineBuffers:
    """The line buffers of a network.

    Args:
        graph: the network.
        kernels: the shape of each layer's weight.
        row_bytes: of one row of each stored tensor: what decides which branch waits.

    Raises:
        ModelError: a row that depends on all rows of its input.
    """
    timetable = _Timetable(Axis(graph=graph, kernels=kernels), stride_px(graph, kernels))
    for name in reversed(timetable.stored):
        timetable.delay_where_that_is_less(name, row_bytes)
    rows = {name: timetable.waiting(name) for name in timetable.stored}
    return LineBuffers(rows=rows, latency_rows=int(timetable.latency))


class _Timetable:
    """When each row of each stored tensor is there, from the middle of an endless picture on."""

    def __init__(self, axis: Axis, stride: int) -> None:
        graph = axis.graph
        self.axis = axis
        self._nodes, self._places = graph.by_name(), axis.places()
        self._scales = axis.scales()
        before, after = reach_px(axis, stride)
        # Long enough for the last stage to be busy when the input ends.
        self.length = (2 * (before + after) // stride + 6) * stride
        # One period of moments, of which every row that is needed is known.
        end = self.length - stride
        self.moments = np.arange(end - stride, end)
        self.stored = [node.name for node in graph.nodes if not node.moves]
        self.taken: dict[str, list[tuple[str, Span]]] = {}
        self.times: dict[str, np.ndarray] = {}
        self.users: dict[str, list[str]] = {name: [] for name in self.stored}
        for name in self.stored:
            self._plan(name)
        self.latency = self._plan_output(graph)

    def waiting(self, name: str) -> int:
        """Rows of a tensor that are there, and of which somebody needs one later."""
        most = 0
        for user in self.users[name]:
            for source, (first, _) in self.taken[user]:
                if source == name:
                    most = max(most, self._waiting_for(name, self.times[user], first))
        return most

    def delay_where_that_is_less(self, name: str, row_bytes: Mapping[str, float]) -> None:
        """Compute a tensor as late as its users allow, if fewer bytes wait then."""
        slack = self._slack(name)
        if slack < 1.0 or not self.taken[name]:
            return
        concerned = {name, *(source for source, _ in self.taken[name])}
        before = sum(self.waiting(other) * row_bytes[other] for other in concerned)
        early = self.times[name]
        self.times[name] = early + slack
        after = sum(self.waiting(other) * row_bytes[other] for other in concerned)
        if after >= before:
            self.times[name] = early

    def _plan(self, name: str) -> None:
        count = int(self.length / self._scales[name])
        rows = np.arange(count)
        node = self._nodes[name]
        self.taken[name] = []
        times = rows.astype(np.float64) if not node.inputs else np.full(count, -NEVER)
        for source in node.inputs:
            span = self.axis.spans(node, self._places[source], (rows, rows))
            self.taken[name] += self._stored_behind(self._nodes[source], span)
        for source, (_, last) in self.taken[name]:
            times = np.maximum(times, self._when(source, last))
        for source in dict.fromkeys(source for source, _ in self.taken[name]):
            self.users[source].append(name)
        self.times[name] = times

    def _plan_output(self, graph: Graph) -> float:
        """The output's rows leave one after the other, as late as the latest has to."""
        scale = float(self._scales[graph.output])
        rows = np.arange(int(self.length / scale))
        self.taken[OUTPUT] = self._stored_behind(graph.node(graph.output), (rows, rows))
        ready = np.full(len(rows), -NEVER)
        for source, (_, last) in self.taken[OUTPUT]:
            ready = np.maximum(ready, self._when(source, last))
            self.users[source].append(OUTPUT)
        late = (ready - rows * scale)[np.abs(ready) < NEVER / 2].max()
        self.times[OUTPUT] = rows * scale + late
        return float(late)

    def _stored_behind(self, node: Node, rows: Span) -> list[tuple[str, Span]]:
        """The stored tensors whose rows some rows of a node are read from."""
        if not node.moves:
            return [(node.name, rows)]
        found: list[tuple[str, Span]] = []
        for name in node.inputs:
            span = self.axis.spans(node, self._places[name], rows)
            found += self._stored_behind(self._nodes[name], span)
        return found

    def _when(self, name: str, rows: np.ndarray) -> np.ndarray:
        """When some rows are there; those above the picture always are, those below never."""
        times = self.times[name]
        inside = times[np.clip(rows, 0, len(times) - 1)]
        return np.where(rows < 0, -NEVER, np.where(rows >= len(times), NEVER, inside))

    def _waiting_for(self, name: str, when: np.ndarray, first: np.ndarray) -> int:
        there = np.searchsorted(self.times[name], self.moments, side="right")
        following = np.searchsorted(when, self.moments, side="right")
        oldest = first[np.minimum(following, len(first) - 1)]
        return max(int((there - oldest).max()), 0)

    def _slack(self, name: str) -> float:
        """By how much later every row could be there."""
        least = NEVER
        for user in self.users[name]:
            for source, (_, last) in self.taken[user]:
                if source == name:
                    spare = self.times[user] - self._when(name, last)
                    settled = (last >= 0) & (last < len(self.times[name]))
                    settled &= np.abs(self.times[user]) < NEVER / 2
                    settled &= np.abs(self._when(name, last)) < NEVER / 2
                    settled[: len(settled) // 2] = False
                    least = min(least, float(spare[settled].min())) if settled.any() else least
        return 0.0 if least >= NEVER / 2 else least
