"""Limits that belong to the operation before them: a convolution and its ReLU are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quantisp.quantization.graph.nodes import (
    Add,
    Clamp,
    Conv,
    ConvTranspose,
    Graph,
    Linear,
    Multiply,
    Node,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Resize,
    Slice,
    Table,
)

__all__ = ["fuse_clamps"]

# A limit may as well come before these.
_TRANSPARENT = (Permute, PixelShuffle, PixelUnshuffle, Resize, Slice)


def fuse_clamps(graph: Graph) -> Graph:
    """The same network; what is limited right after it is computed becomes one node.

    It has to be the only use of what was computed; moving values about in between does not matter.
    Nodes that nobody uses are left out.
    """
    nodes = dict(graph.by_name())
    renamed: dict[str, str] = {}
    users = graph.users()
    for node in graph.nodes:
        operation = node.operation
        if not isinstance(operation, Table) or operation.function != "clamp":
            continue
        computing = _computing(nodes, users, graph.output, node.inputs[0])
        if computing is None:
            continue
        lower, upper = operation.parameters
        nodes[computing.name] = _limited(computing, Clamp(lower=lower, upper=upper))
        renamed[node.name] = node.inputs[0]

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    kept = [
        replace(node, inputs=tuple(map(final, node.inputs)))
        for node in nodes.values()
        if node.name not in renamed
    ]
    return _used(replace(graph, nodes=tuple(kept), output=final(graph.output)))


def _computing(
    nodes: dict[str, Node], users: Mapping[str, tuple[str, ...]], output: str, name: str
) -> Node | None:
    while True:
        node = nodes[name]
        if len(users[name]) != 1 or name == output:
            return None
        if isinstance(node.operation, Conv | ConvTranspose | Linear | Add | Multiply):
            return node
        if isinstance(node.operation, Table) and node.operation.function == "clamp":
            # Already part of what is before it.
            name = node.inputs[0]
            continue
        if not isinstance(node.operation, _TRANSPARENT):
            return None
        name = node.inputs[0]


def _limited(node: Node, clamp: Clamp) -> Node:
    operation = node.operation
    if isinstance(operation, Conv | ConvTranspose | Linear | Add | Multiply):
        return replace(node, operation=replace(operation, clamp=operation.clamp.within(clamp)))
    return node


def _used(graph: Graph) -> Graph:
    wanted = {graph.output, graph.nodes[0].name}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return replace(graph, nodes=tuple(reversed(kept)))
