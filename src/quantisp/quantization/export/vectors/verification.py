"""Vectors read back and computed again: by the specification, and in bulk in another way.

Every value is compared with a second executor that is built from the files, and that adds up in
float64 alone, without limbs. The specification takes a microsecond for each product, so that of
large tensors it computes as many values as there is time for, spread evenly, the ends among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quantisp.errors import RunError
from quantisp.quantization.activations.rescaling import Rescale
from quantisp.quantization.export.vectors.files import read_tensor
from quantisp.quantization.graph.nodes import Mask, Node
from quantisp.quantization.integer import (
    Array,
    IntegerExecutor,
    IntegerNetwork,
    NodeIntegers,
    node_rule,
)

__all__ = ["Checked", "verify_vectors"]

# Products by the specification in one node and one set of vectors.
MOST_PRODUCTS = 150_000
LEAST_VALUES = 64


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was compared.

    Args:
        values: all of them, with another kernel.
        by_specification: of these, with the specification.
    """

    values: int
    by_specification: int

    def words(self) -> str:
        """For people."""
        part = "all" if self.values == self.by_specification else f"{self.by_specification:,}"
        return (
            f"read back and computed again: {self.values:,} values in float64, {part} of them by "
            "the specification; none differs"
        )


def verify_vectors(
    manifest: Path, network: IntegerNetwork, on_progress: Callable[[str, int, int], None]
) -> Checked:
    """Compute all vectors in a folder again from its files.

    Args:
        manifest: of the folder.
        network: for its graph, limits, tie rule and accumulators; weights and all other parameters
            are the files'.
        on_progress: as of a request.

    Raises:
        RunError: a value differs, or a file is not what was written.
    """
    document = json.loads(manifest.read_bytes())
    folder, entries = manifest.parent, {entry["name"]: entry for entry in document["nodes"]}
    read = _network(folder, entries, network)
    executor = IntegerExecutor(read, kinds=("float64",))
    crop = {name: read_tensor(folder, entry["crop"]) for name, entry in entries.items()}
    first = read.graph.nodes[0].name
    picture = (crop[first].shape[2], crop[first].shape[3])
    values = specified = 0
    for number, node in enumerate(read.graph.nodes):
        on_progress("verifying", number, len(entries))
        # The input's codes are what there is to begin with.
        sets = [([crop[name] for name in node.inputs], crop[node.name], picture)]
        sets = [] if node.name == first else sets
        corners = entries[node.name]["corners"]
        if corners is not None:
            inputs = [read_tensor(folder, entry) for entry in corners["inputs"]]
            sets.append((inputs, read_tensor(folder, corners["output"]), (1, 1)))
        for inputs, output, size in sets:
            again = executor.run_node(node.name, inputs, size)
            _compare(node, again, output)
            values += output.numel()
            specified += _by_specification(read, node, inputs, output, size)
    return Checked(values=values, by_specification=specified)


def _compare(node: Node, found: Tensor, wanted: Tensor) -> None:
    if found.shape != wanted.shape or not torch.equal(found.long(), wanted.long()):
        raise RunError(
            f"expected the vectors of {node.name!r} as they are computed from what was written, "
            "found others: nothing is kept"
        )


def _by_specification(
    network: IntegerNetwork,
    node: Node,
    inputs: Sequence[Tensor],
    output: Tensor,
    picture: tuple[int, int],
) -> int:
    """Compare as many values as there is time for; returns how many."""
    arrays = [Array(tuple(x.shape), x.flatten().tolist()) for x in inputs]
    shape, value = node_rule(network, node, arrays, picture)
    weights = network.integers[node.name].weights
    products = 1 if weights is None else weights.codes.numel() // len(weights.bias)
    total = output.numel()
    count = min(total, max(MOST_PRODUCTS // products, LEAST_VALUES))
    flat: list[int] = output.flatten().tolist()
    for place in np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist():
        index = tuple(int(i) for i in np.unravel_index(place, shape))
        if value(index) != flat[place]:
            raise RunError(
                f"expected {value(index)} at {index} of {node.name!r} by the specification, found "
                f"{flat[place]}: nothing is kept"
            )
    return count


def _network(
    folder: Path, entries: Mapping[str, Mapping[str, Any]], network: IntegerNetwork
) -> IntegerNetwork:
    """The same network with the parameters of the files."""
    nodes: list[Node] = []
    integers: dict[str, NodeIntegers] = {}
    for node, own in network:
        read = {
            kind: read_tensor(folder, entry)
            for kind, entry in entries[node.name]["parameters"].items()
        }
        weights, rescale = own.weights, own.rescale
        if weights is not None:
            weights = replace(weights, codes=read["weight"].int(), bias=read["bias"])
        if rescale is not None:
            rescale = Rescale(multiplier=read["multiplier"], shift=read["shift"])
        if isinstance(node.operation, Mask):
            node = replace(node, operation=Mask(tile=read["tile"].float()))
        nodes.append(node)
        integers[node.name] = replace(
            own, weights=weights, rescale=rescale, table=read.get("table")
        )
    return replace(network, graph=replace(network.graph, nodes=tuple(nodes)), integers=integers)
