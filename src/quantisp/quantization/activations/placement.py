"""Which tensors share a quantizer, which are provably never negative, and how wide each is.

Where the plan gives sums a width of their own (``sum_bits``), every tensor that is added to another
has it: the trunk of a residual network, what layers add to it, and what makes up the output. All
other readers (layers, products, tables) get it rounded to the width of the activations, so that
multipliers stay as narrow as they were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from quantisp.errors import PlanError
from quantisp.quantization.graph.functions import FUNCTIONS, apply_function
from quantisp.quantization.graph.nodes import (
    Add,
    Clamp,
    Concat,
    Graph,
    Input,
    Multiply,
    Node,
    Requantize,
    Table,
)
from quantisp.quantization.plan import Plan

__all__ = ["Group", "Placement", "place_quantizers"]

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors of one quantizer.

    Args:
        producers: the nodes that compute its values, in order; all others move them.
        bits: None is float.
        signed: False where no value of it can be negative.
        unit: it stands for [0, 1] in 2^bits - 1 steps: the input or the output.
    """

    producers: tuple[str, ...]
    bits: int | None
    signed: bool
    unit: bool


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A graph with its quantizers.

    Args:
        graph: with a ``Requantize`` wherever two quantizers meet in one tensor.
        groups: by the name of the first node of each.
        group_of: the name of each node's group.
    """

    graph: Graph
    groups: Mapping[str, Group]
    group_of: Mapping[str, str]


def place_quantizers(graph: Graph, plan: Plan) -> Placement:
    """One quantizer per computed tensor; what only moves values shares its input's.

    Raises:
        PlanError: the plan gives bits to the output of a layer that the graph does not use.
    """
    used = {node.layer for node in graph.nodes}
    for name, entry in plan.layers.items():
        if entry.activation_bits is not None and name not in used:
            raise PlanError(
                f"expected layers that the network uses, the plan gives {name!r} "
                f"{entry.activation_bits} activation bits: plan it without"
            )
    graph = _with_own_output(_with_own_concat(graph))
    placed = _placed(graph, plan)
    sum_bits = plan.activations.sum_bits
    return placed if sum_bits is None else _with_wide_sums(placed, plan, sum_bits)


def _placed(graph: Graph, plan: Plan) -> Placement:
    group_of = _groups(graph)
    intervals = value_intervals(graph)
    members: dict[str, list[Node]] = {}
    for node in graph.nodes:
        members.setdefault(group_of[node.name], []).append(node)
    groups = {
        name: _group(nodes, plan, intervals, is_output=name == group_of[graph.output])
        for name, nodes in members.items()
    }
    return Placement(graph=graph, group_of=group_of, groups=groups)


def value_intervals(graph: Graph) -> Mapping[str, Interval]:
    """Between which two numbers each tensor provably lies, for inputs in [0, 1]."""
    found: dict[str, Interval] = {}
    for node in graph.nodes:
        found[node.name] = _interval(node, [found[name] for name in node.inputs])
    return found


def _group(
    nodes: list[Node], plan: Plan, intervals: Mapping[str, Interval], *, is_output: bool
) -> Group:
    producers = [node for node in nodes if not node.moves]
    is_input = isinstance(nodes[0].operation, Input)
    widths = [_bits(node, plan) for node in producers]
    bits = None if None in widths else max(width for width in widths if width is not None)
    if bits is not None and is_output:
        bits = plan.activations.output_width(bits)
    return Group(
        producers=tuple(node.name for node in producers),
        bits=bits,
        signed=not is_output and any(intervals[node.name][0] < 0 for node in nodes),
        unit=is_input or is_output,
    )


def _bits(node: Node, plan: Plan) -> int | None:
    if isinstance(node.operation, Input):
        return plan.activations.input_bits
    entry = plan.default if node.layer is None else plan.for_layer(node.layer)
    return entry.activation_bits


def _groups(graph: Graph) -> dict[str, str]:
    """For each node the first of those that share its quantizer."""
    first: dict[str, str] = {node.name: node.name for node in graph.nodes}
    order = {node.name: index for index, node in enumerate(graph.nodes)}

    def find(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for node in graph.nodes:
        if node.moves:
            for name in node.inputs:
                low, high = sorted((find(node.name), find(name)), key=order.__getitem__)
                first[high] = low
    return {name: find(name) for name in first}


def _with_own_concat(graph: Graph) -> Graph:
    """The input's grid is given: where it is joined with other tensors, it changes its scale."""
    nodes: list[Node] = []
    of_input: set[str] = {graph.nodes[0].name}
    for node in graph.nodes:
        fixed = [name for name in node.inputs if name in of_input]
        if node.moves and len(fixed) == len(node.inputs):
            of_input.add(node.name)
        elif isinstance(node.operation, Concat) and fixed:
            changed = {name: f"{node.name}_from_{name}" for name in fixed}
            nodes += [_requantize(new, old, node.where) for old, new in changed.items()]
            node = replace(node, inputs=tuple(changed.get(n, n) for n in node.inputs))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _with_own_output(graph: Graph) -> Graph:
    """The output's grid is given: it is of its own, if others use what it shares values with."""
    group_of, users = _groups(graph), graph.users()
    group = group_of[graph.output]
    members = [name for name in group_of if group_of[name] == group]
    used_elsewhere = any(group_of[user] != group for name in members for user in users[name])
    if not used_elsewhere and group != graph.nodes[0].name:
        return graph
    node = _requantize("output", graph.output, "the output")
    return replace(graph, nodes=(*graph.nodes, node), output=node.name)


def _with_wide_sums(placed: Placement, plan: Plan, sum_bits: int) -> Placement:
    """What is added to something gets its own width, apart from what reads it for anything else."""
    graph, group_of = placed.graph, placed.group_of
    added = {
        group_of[name]
        for node in graph.nodes
        if isinstance(node.operation, Add)
        for name in node.inputs
    }
    wide = {
        name
        for name in added
        if not placed.groups[name].unit and (placed.groups[name].bits or sum_bits) < sum_bits
    }
    users, by_name = graph.users(), graph.by_name()
    nodes: list[Node] = []
    narrow: dict[str, str] = {}
    for node in graph.nodes:
        if _multiplies(node):
            node = replace(node, inputs=tuple(narrow.get(name, name) for name in node.inputs))
        nodes.append(node)
        readers = [by_name[name] for name in users[node.name]]
        if group_of[node.name] in wide and any(_multiplies(reader) for reader in readers):
            narrow[node.name] = f"{node.name}_narrow"
            nodes.append(_requantize(narrow[node.name], node.name, node.where))
    found = _placed(replace(graph, nodes=tuple(nodes)), plan)
    groups = dict(found.groups)
    for name, new in narrow.items():
        groups[new] = replace(groups[new], bits=groups[group_of[name]].bits)
    for name in wide:
        groups[name] = replace(groups[name], bits=sum_bits)
    return replace(found, groups=groups)


def _multiplies(node: Node) -> bool:
    """Whether a wide input would make it dearer: layers, products and tables."""
    return not node.moves and not isinstance(node.operation, Add | Requantize)


def _requantize(name: str, of: str, where: str) -> Node:
    return Node(name=name, operation=Requantize(), inputs=(of,), where=where)


def _interval(node: Node, inputs: list[Interval]) -> Interval:
    operation = node.operation
    match operation:
        case Input():
            return 0.0, 1.0
        case Add():
            (a, b), (c, d) = inputs
            found = (a + c, b + d) if operation.sign > 0 else (a - d, b - c)
        case Multiply():
            square = len(set(node.inputs)) == 1
            found = _product(*inputs)
            found = (max(found[0], 0.0), found[1]) if square else found
        case Table():
            return _table_interval(operation, inputs[0])
        case _ if node.moves or isinstance(operation, Requantize):
            # Padding and masks bring zeros.
            return min(0.0, *(low for low, _ in inputs)), max(0.0, *(high for _, high in inputs))
        case _:
            found = (-math.inf, math.inf)
    clamp: Clamp = getattr(operation, "clamp", Clamp())
    low, high = (min(max(end, clamp.lower), clamp.upper) for end in found)
    return low, high


def _product(first: Interval, second: Interval) -> Interval:
    ends = [0.0 if 0.0 in (x, y) else x * y for x in first for y in second]
    return min(ends), max(ends)


def _table_interval(operation: Table, interval: Interval) -> Interval:
    function = FUNCTIONS[operation.function]
    ends = torch.tensor(interval, dtype=torch.float64)
    values = apply_function(operation.function, operation.parameters, ends)
    # Infinity times 0 is no number, and may be anything.
    low, high = (float(v) for v in values)
    low, high = (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)
    if function.least is not None and interval[0] < 0:
        return function.least, max(low, high, 0.0)
    return min(low, high), max(low, high)
