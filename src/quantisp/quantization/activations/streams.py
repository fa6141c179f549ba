"""Channels of a residual stream, scaled so that all have the same range.

A stream is what sums tie together: the trunk of a residual network, and all that layers add to it.
Its channels share one scale where a layer reads them in integers, so that a channel of a small
range has few codes. Channel c of everything in the stream may be multiplied by s_c > 0 if the
layers that write it multiply their rows by s_c, and those that read it divide their columns. The
network's output stays.

Source: the idea is that of Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through
weight equalization and bias correction", ICCV 2019, section 4.1, for two layers in a row and ranges
of weights. What is ours are streams, and the range: that of the stream where a layer reads it last,
for nothing behind makes up for what is lost there. Layers in a row are left alone: with equal
ranges between them, too, the output was farther from float.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.graph import Graph, capture, pad_inside
from quantisp.quantization.graph.execution import apply_move, run_nodes
from quantisp.quantization.graph.nodes import Add, Clamp, Concat, Conv, Multiply, Node, Table
from quantisp.quantization.layers import bias_of

__all__ = ["equalize_streams"]

# Of the magnitudes of a channel, the share that its range covers.
COVERED = 0.9999
# No channel is scaled by more than this, or by less than its inverse, next to the others.
MOST = 16.0
# Two scales that are no channel's own: of a value that is zero, any; and 1.
ZERO, FIXED = 0, 1

RELU = Clamp(lower=0.0)


@torch.no_grad()
def equalize_streams(model: nn.Module, inputs: Sequence[Float[Tensor, "_ _ _ _"]]) -> nn.Module:
    """A copy that gives the same, whose streams have channels of about equal ranges at their end.

    Channels stay as they are where something does not allow to scale them: a layer that runs twice,
    shares a parameter or is no ungrouped convolution, a product with something else that could be
    scaled, and a function of which f(s x) = s f(x) is not true for every s > 0.

    Args:
        model: in evaluation mode, without batch normalisation; it is not changed.
        inputs: of the network, at least one, to find the ranges with.

    Raises:
        ModelError: it cannot be captured.
    """
    graph = capture(model, inputs[0])
    on_cpu = copy.deepcopy(model).cpu().eval()
    given = [pad_inside(on_cpu, x.detach().cpu()) for x in inputs]
    tied = _tie(graph, on_cpu, given[0][:1])
    scales = _scales(tied, graph, on_cpu, given)
    found = copy.deepcopy(model)
    for layer, read in tied.read.items():
        weight = found.get_submodule(layer).get_parameter("weight")
        columns, rows = (
            weight.new_tensor([scales.get(tied.find(c), 1.0) for c in channels])
            for channels in (read, tied.written[layer])
        )
        weight.mul_(rows.reshape(-1, 1, 1, 1) / columns[:, None, None])
        bias = bias_of(found.get_submodule(layer))
        if bias is not None:
            bias.mul_(rows)
    return found


@dataclass(kw_only=True)
class _Tied:
    """Which channels have the same scale.

    Args:
        parents: of each scale, one that it is the same as; the last of such a chain is itself.
        read: for each layer that may be scaled, in their order, the scale of each channel that it
            takes.
        written: of each channel that it gives.
        summed: scales of channels that were added to others.
    """

    parents: list[int] = field(default_factory=lambda: [ZERO, FIXED])
    read: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    written: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    summed: set[int] = field(default_factory=set[int])

    def find(self, scale: int) -> int:
        while self.parents[scale] != scale:
            scale = self.parents[scale]
        return scale

    def new(self, count: int) -> list[int]:
        first = len(self.parents)
        self.parents += range(first, first + count)
        return list(range(first, first + count))

    def same(self, scales: Iterable[int]) -> int:
        """Let these be the same from now on; what is always zero has any."""
        roots = sorted({self.find(scale) for scale in scales} - {ZERO})
        for root in roots[1:]:
            self.parents[root] = roots[0]
        return roots[0] if roots else ZERO

    def by_channel(self, *labels: Float[Tensor, "n c h w"]) -> list[int]:
        """The scale of each channel, all values of which have the same from now on."""
        channels = zip(*(each.transpose(0, 1) for each in labels), strict=True)
        return [self.same(s for part in parts for s in _found_in(part)) for parts in channels]

    def pairwise(self, one: Tensor, other: Tensor) -> Tensor:
        """Let each value of one tensor have the scale of the other's; these scales."""
        count = len(self.parents)
        for code in _found_in(one * count + other):
            pair = divmod(code, count)
            self.summed.update(pair)
            self.same(pair)
        return torch.where(one == ZERO, other, one)

    def fix(self, labels: Iterable[Tensor]) -> None:
        """Nothing of these tensors can be scaled."""
        for each in labels:
            self.same([FIXED, *_found_in(each)])

    def is_fixed(self, labels: Tensor) -> bool:
        return all(self.find(scale) in (ZERO, FIXED) for scale in _found_in(labels))


def _found_in(labels: Tensor) -> list[int]:
    return labels.unique().long().tolist()


def _tie(graph: Graph, network: nn.Module, x: Float[Tensor, "1 c h w"]) -> _Tied:
    """The scales of all channels, found by moving labels as the network moves values."""
    tied = _Tied()
    labels: dict[str, Tensor] = {}
    free = _free_layers(graph, network)
    last_uses = graph.last_uses()
    size = (x.shape[2], x.shape[3])
    for node, _, value in run_nodes(graph, network, x):
        inputs = [labels[name] for name in node.inputs]
        found = _labels(node, inputs, value.shape[1], tied, size, is_free=node.layer in free)
        if found is None:
            tied.fix(inputs)
            found = torch.tensor(float(FIXED), dtype=torch.float64)
        labels[node.name] = found.expand(value.shape)
        for name in last_uses[node.name]:
            del labels[name]
    tied.fix([labels[graph.output]])
    return tied


def _labels(
    node: Node,
    inputs: Sequence[Tensor],
    channels: int,
    tied: _Tied,
    size: tuple[int, int],
    *,
    is_free: bool,
) -> Tensor | None:
    """The scales of what a node gives; None where nothing of it, or of its inputs, has one."""
    operation = node.operation
    keeps_scale = getattr(operation, "clamp", Clamp()) in (Clamp(), RELU)
    if node.layer is not None:
        if not is_free:
            return None
        tied.read[node.layer] = tied.by_channel(inputs[0])
        written = tied.new(channels) if keeps_scale else [FIXED] * channels
        tied.written[node.layer] = written
        return torch.tensor(written, dtype=torch.float64).reshape(1, -1, 1, 1)
    if isinstance(operation, Concat) and operation.axis % 4 != 1:
        # Which part of a channel lies where depends on the size.
        tied.by_channel(*inputs)
    if node.moves:
        return apply_move(operation, inputs, size)
    if isinstance(operation, Table) and _is_homogeneous(operation):
        return inputs[0]
    if isinstance(operation, Add) and keeps_scale:
        return tied.pairwise(*inputs)
    if isinstance(operation, Multiply) and keeps_scale:
        for one, other in (inputs, inputs[::-1]):
            if tied.is_fixed(other):
                return one
    return None


def _is_homogeneous(table: Table) -> bool:
    """Whether f(s x) = s f(x) for every s > 0."""
    match table.function, table.parameters:
        case ("clamp", (0.0, math.inf)) | ("affine", (_, 0.0)) | (("abs" | "leaky_relu"), _):
            return True
        case _:
            return False


def _free_layers(graph: Graph, network: nn.Module) -> set[str]:
    """Those that run once, have parameters of their own, and are ungrouped convolutions."""
    layers = dict(network.named_modules())
    used = Counter(node.layer for node in graph.nodes if node.layer is not None)
    owned = {name: [id(p) for p in layers[name].parameters(recurse=False)] for name in used}
    owners = Counter(parameter for parameters in owned.values() for parameter in parameters)
    return {
        node.operation.layer
        for node in graph.nodes
        if isinstance(node.operation, Conv)
        and node.operation.groups == 1
        and used[node.operation.layer] == 1
        and all(owners[parameter] == 1 for parameter in owned[node.operation.layer])
    }


def _scales(
    tied: _Tied, graph: Graph, network: nn.Module, inputs: Sequence[Tensor]
) -> Mapping[int, float]:
    """What the channels of streams are multiplied by."""
    streams = {tied.find(scale) for scale in tied.summed} - {ZERO, FIXED}
    last: dict[int, str] = {}
    for layer, channels in tied.read.items():
        last |= dict.fromkeys(streams.intersection(map(tied.find, channels)), layer)
    found: dict[int, float] = {}
    for layer, ranges in _ranges(graph, network, set(last.values()), inputs).items():
        own: dict[int, float] = {}
        # A layer may read one channel several times: pixels that have become channels.
        for scale, size in zip(map(tied.find, tied.read[layer]), ranges.tolist(), strict=True):
            if last.get(scale) == layer and size > 0.0:
                own[scale] = max(size, own.get(scale, 0.0))
        logs = {scale: math.log(size) for scale, size in own.items()}
        middle = math.fsum(logs.values()) / max(len(logs), 1)
        for scale, value in logs.items():
            found[scale] = min(max(math.exp(middle - value), 1.0 / MOST), MOST)
    return found


def _ranges(
    graph: Graph, network: nn.Module, layers: set[str], inputs: Sequence[Tensor]
) -> dict[str, Float[Tensor, " channels"]]:
    """Of each channel that a layer takes; 0 where hardly any value is not."""
    taken: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for x in inputs:
        for node, values, _ in run_nodes(graph, network, x):
            if node.layer in taken:
                taken[node.layer].append(values[0].transpose(0, 1).flatten(1).abs())
    found: dict[str, Tensor] = {}
    for layer, parts in taken.items():
        values = torch.cat(parts, dim=1)
        found[layer] = values.kthvalue(max(int(COVERED * values.shape[1]), 1), dim=1).values
    return found
