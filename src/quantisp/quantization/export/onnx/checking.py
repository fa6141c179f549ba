"""Running what was written, node by node on equal inputs, and comparing it with the integers.

A model is cut at every tensor of the network: each node is given the codes that the integer
executor has there, so that no difference can hide behind another, or be made by one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.errors import RunError
from quantisp.quantization.export.onnx.running import Values
from quantisp.quantization.export.onnx.scales import allowed_difference
from quantisp.quantization.export.shapes import tensor_shapes
from quantisp.quantization.integer.executor import IntegerExecutor
from quantisp.quantization.integer.network import Accumulator, IntegerNetwork

__all__ = ["ModelCheck", "NodeCheck", "NodeRunner", "check_input", "check_model", "lasting"]

NodeRunner = Callable[[Any, Sequence[str], Values, Any], Values]
"""Takes a model, names of tensors, the values of what they follow from, and the picture."""
MOST_VALUES = 1 << 26
BLOCK = 8
# Codes times a scale, in float32, over that scale.
NOT_WHOLE = 1 / 64


@dataclass(frozen=True, kw_only=True)
class NodeCheck:
    """How far a node of a file is from the network's.

    Args:
        node, operation: its name, and what it does.
        values: how many were compared.
        differing: how many of them differed.
        largest: difference in codes.
        allowed: difference in codes.
    """

    node: str
    operation: str
    values: int
    differing: int
    largest: int
    allowed: int


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """How far a file is from the network: each node for itself, given equal inputs."""

    nodes: tuple[NodeCheck, ...]

    @property
    def rate(self) -> float:
        """The share of all values that differed."""
        return sum(n.differing for n in self.nodes) / max(sum(n.values for n in self.nodes), 1)

    @property
    def largest(self) -> int:
        """The largest difference of all, in codes."""
        return max((n.largest for n in self.nodes), default=0)

    def facts(self) -> dict[str, Any]:
        """For people and documents."""
        most = max(self.nodes, key=lambda n: n.differing / max(n.values, 1))
        return {
            "nodes_compared": len(self.nodes),
            "nodes_that_differ": sum(n.differing > 0 for n in self.nodes),
            "nodes_that_must_not_differ": sum(n.allowed == 0 for n in self.nodes),
            "values_compared": sum(n.values for n in self.nodes),
            "values_that_differ": sum(n.differing for n in self.nodes),
            "differing_share": self.rate,
            "largest_difference": self.largest,
            "most_differing": f"{most.node}: {most.differing} of {most.values}",
        }

    def refuse(self) -> None:
        """Refuse a file that breaks the rule.

        Raises:
            RunError: a node differs by more than it may.
        """
        for found in self.nodes:
            if found.largest > found.allowed:
                raise RunError(
                    f"expected nodes that differ from the integers by at most "
                    f"{found.allowed} given equal inputs, {found.node!r} ({found.operation}) "
                    f"differs by {found.largest} in {found.differing} of {found.values} values: "
                    "nothing was written; plan fewer bits"
                )


def check_input(shape: tuple[int, ...], seed: int = 0) -> Float[Tensor, "n c h w"]:
    """Blocks of noise, of both extremes, of one value, and a ramp, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(shape, generator=generator)
    down, across = (-(-size // BLOCK) for size in shape[2:])

    def blocks(values: Tensor) -> Tensor:
        wide = values.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
        return wide[:, :, : shape[2], : shape[3]]

    places = (*shape[:2], down, across)
    kinds = blocks(torch.randint(0, 5, places, generator=generator))
    flat = blocks(torch.rand(places, generator=generator))
    ramp = torch.linspace(0, 1, shape[3]).expand(shape)
    for kind, values in ((1, noise.round()), (2, flat.round()), (3, flat), (4, ramp)):
        noise = torch.where(kinds == kind, values, noise)
    return noise


def check_model(
    model: Any,
    network: IntegerNetwork,
    inputs: Sequence[Float[Tensor, "_ _ _ _"]],
    run: NodeRunner,
    *,
    scales: Mapping[str, float] | None = None,
    on_node: Callable[[int, int], None] | None = None,
) -> ModelCheck:
    """Compare a model's nodes with the network's.

    Args:
        model: as ``build_onnx`` or ``build_qonnx`` made it, or as it was read from a file.
        network: that it was made from.
        inputs: real numbers, as the graph takes them.
        run: how to run it.
        scales: of each tensor, where the model's tensors are codes times scale; None are codes.
        on_node: called with the number of nodes done, and of all.

    Raises:
        RunError: it does not run, or gives tensors of another shape.
    """
    # Sums that are an error give nothing to be compared with: here they are what they are.
    executor = IntegerExecutor(network.with_accumulator(lasting(network)))
    counts: dict[str, list[int]] = {}
    total = len(network.graph.nodes) * len(inputs)
    done = 0
    for x in inputs:
        for names in _chunks(network, tuple(x.shape)):
            needed = {name for node in names for name in network.graph.node(node).inputs}
            expected = executor.run(x, [*needed, *names])
            given = {
                name: expected[name].numpy() * np.float32(_scale(scales, name)) for name in needed
            }
            found = run(model, names, given, x.numpy())
            for name in names:
                seen = found[name].astype(np.float64) / _scale(scales, name)
                _count(counts.setdefault(name, [0, 0, 0]), name, seen, expected[name])
            done += len(names)
            if on_node is not None:
                on_node(done, total)
    return ModelCheck(
        nodes=tuple(
            NodeCheck(
                node=node.name,
                operation=type(node.operation).__name__,
                values=counts[node.name][0],
                differing=counts[node.name][1],
                largest=counts[node.name][2],
                allowed=allowed_difference(network, node),
            )
            for node, _ in network
        )
    )


def _scale(scales: Mapping[str, float] | None, name: str) -> float:
    return 1.0 if scales is None else scales[name]


def lasting(network: IntegerNetwork) -> Accumulator | None:
    """The accumulators that files have: an error gives no codes, so that nothing is limited."""
    accumulator = network.accumulator
    return None if accumulator is None or accumulator.overflow == "error" else accumulator


def _chunks(network: IntegerNetwork, shape: tuple[int, ...]) -> Iterator[list[str]]:
    """Nodes whose tensors are in memory together: not more than it holds."""
    shapes = tensor_shapes(network, shape)
    chunk: list[str] = []
    held = 0
    for node in network.graph.nodes:
        values = sum(int(np.prod(shapes[name])) for name in (node.name, *node.inputs))
        if chunk and held + values > MOST_VALUES:
            yield chunk
            chunk, held = [], 0
        chunk.append(node.name)
        held += values
    yield chunk


def _count(
    counts: list[int], name: str, found: Float[np.ndarray, ...], expected: Int[Tensor, ...]
) -> None:
    if tuple(found.shape) != tuple(expected.shape):
        raise RunError(
            f"expected a tensor of shape {tuple(expected.shape)} from node {name!r}, the file "
            f"gives {tuple(found.shape)}: nothing was written"
        )
    difference = np.abs(found - expected.numpy())
    whole = np.rint(difference)
    if not (np.abs(difference - whole) < NOT_WHOLE).all():
        raise RunError(
            f"expected whole codes from node {name!r}, the file gives others: nothing was written"
        )
    counts[0] += whole.size
    counts[1] += int(np.count_nonzero(whole))
    counts[2] = max(counts[2], int(whole.max(initial=0)))
