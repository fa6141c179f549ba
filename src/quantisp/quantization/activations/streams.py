"""Channels of a residual stream, scaled so that all have the same range.

A stream is what sums tie together: the trunk of a residual network, and all that layers add to it.
Its channels share one scale where a layer reads them in integers, so that a channel of a small
range has few codes. Channel c of everything in the stream may be multiplied by s_c > 0 if the
layers that write it multiply their rows by s_c, and those that read it divide their columns. The
network's output stays.

Source: the idea is that of Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through
weight equalization and bias correction", ICCV 2019, section 4.1, for two layers in a row and ranges
of weights. What is ours are streams, and the range: that of the stream where a layer reads it last,
for nothing behind makes up for what is lost there, and the sum of all is what matters most. Layers
in a row are left alone: what only one layer reads is rounded finely enough, and a rare channel
that is spread out costs the others more than it gains.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.graph import Graph, capture, pad_inside
from quantisp.quantization.graph.execution import apply_move, compute
from quantisp.quantization.graph.nodes import Add, Clamp, Conv, Input, Multiply, Node
from quantisp.quantization.watching import watch

__all__ = ["equalize_streams"]

# Of the magnitudes of a channel, the share that its range covers.
COVERED = 0.9999
# No channel is scaled by more than this, or by less than its inverse, next to the others.
MOST = 16.0
# Of a value: it is zero whatever the scale; its scale is 1.
ZERO, FIXED = 0, 1


@torch.no_grad()
def equalize_streams(model: nn.Module, inputs: Sequence[Float[Tensor, "_ _ _ _"]]) -> nn.Module:
    """A copy of the network that gives the same, and whose streams have channels of equal ranges.

    Where a layer runs twice, shares its weight, or is not an ungrouped convolution, and where a
    function follows that is not ReLU, channels stay as they are.

    Args:
        model: in evaluation mode, without batch normalisation; it is not changed.
        inputs: of the network, to find the ranges with.

    Raises:
        ModelError: it cannot be captured.
    """
    found = copy.deepcopy(model)
    graph = capture(model, inputs[0])
    on_cpu = copy.deepcopy(model).cpu().eval()
    tied = _tie(graph, on_cpu, pad_inside(on_cpu, inputs[0][:1].detach().cpu()))
    # Of each stream the layer that reads it last.
    last: dict[int, str] = {}
    for layer, channels in tied.read.items():
        last |= dict.fromkeys(map(tied.find, channels), layer)
    scale: dict[int, float] = {}
    for layer in dict.fromkeys(last.values()):
        of = [tied.find(channel) for channel in tied.read[layer]]
        own = [last[c] == layer and c > FIXED and c in tied.summed_now() for c in of]
        if any(own):
            ranges = _ranges(model, layer, inputs)[own].log()
            factors = (ranges.nanmean() - ranges).nan_to_num(0.0).exp().clamp(1.0 / MOST, MOST)
            which = [c for c, is_own in zip(of, own, strict=True) if is_own]
            scale |= dict(zip(which, factors.tolist(), strict=True))
    for layer, read in tied.read.items():
        module = found.get_submodule(layer)
        columns, rows = (
            module.get_parameter("weight").new_tensor(
                [scale.get(tied.find(c), 1.0) for c in channels]
            )
            for channels in (read, tied.written[layer])
        )
        module.get_parameter("weight").mul_(rows.reshape(-1, 1, 1, 1) / columns[:, None, None])
        if "bias" in dict(module.named_parameters(recurse=False)):
            module.get_parameter("bias").mul_(rows)
    return found


def _ranges(model: nn.Module, layer: str, inputs: Sequence[Tensor]) -> Float[Tensor, " channels"]:
    """Of what a layer takes; NaN where there is nothing but zero."""
    taken = [watch(model, [layer], x, calls=1)[layer][0].taken for x in inputs]
    values = torch.cat([x.transpose(0, 1).flatten(1).abs() for x in taken if x is not None], dim=1)
    covered = max(int(COVERED * values.shape[1]), 1)
    ranges = values.kthvalue(covered, dim=1).values
    return ranges.where(ranges > 0.0, torch.nan)


@dataclass(kw_only=True)
class _Tied:
    """Which channels have the same scale.

    Args:
        parents: of each scale, one that it is the same as; at the end of the chain is itself.
        read: for each layer that can be scaled, the scale of each channel that it takes.
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

    def same(self, scales: Sequence[int]) -> int:
        """Let these be the same from now on; what is always zero has any."""
        roots = sorted({self.find(s) for s in scales} - {ZERO})
        for root in roots[1:]:
            self.parents[root] = roots[0]
        return roots[0] if roots else ZERO

    def summed_now(self) -> set[int]:
        return {self.find(scale) for scale in self.summed}

    def all_of(self, labels: Tensor) -> int:
        """Let all scales of a tensor be the same."""
        return self.same(labels.unique().long().tolist())

    def by_channel(self, labels: Float[Tensor, "n c h w"]) -> list[int]:
        """The scale of each channel, all values of which have the same from now on."""
        return [self.all_of(of_channel) for of_channel in labels.transpose(0, 1)]

    def pairwise(self, one: Tensor, other: Tensor) -> Tensor:
        """Let each value of one tensor have the scale of the other's; these scales."""
        one, other = torch.broadcast_tensors(one, other)
        for pair in torch.stack([one.flatten(), other.flatten()]).unique(dim=1).T.long().tolist():
            self.summed.update(pair)
            self.same(pair)
        return torch.where(one == ZERO, other, one)

    def fix(self, *labels: Tensor) -> None:
        """Nothing of these tensors can be scaled."""
        for each in labels:
            self.same([FIXED, self.all_of(each)])

    def is_fixed(self, labels: Tensor) -> bool:
        return all(self.find(s) in (ZERO, FIXED) for s in labels.unique().long().tolist())


def _tie(graph: Graph, network: nn.Module, x: Float[Tensor, "1 c h w"]) -> _Tied:
    """The scales of all channels, found by moving labels as the network moves values."""
    tied = _Tied()
    values: dict[str, Tensor] = {}
    labels: dict[str, Tensor] = {}
    layers = dict(network.named_modules())
    free = _free_layers(graph, layers)
    size = (x.shape[2], x.shape[3])
    for node in graph.nodes:
        given = [values[name] for name in node.inputs]
        layer = None if node.layer is None else layers[node.layer]
        value = x if isinstance(node.operation, Input) else compute(node, given, layer, size)
        values[node.name] = value
        labels[node.name] = _labels(node, [labels[n] for n in node.inputs], value, tied, free, size)
    tied.fix(labels[graph.output])
    return tied


def _labels(
    node: Node,
    inputs: Sequence[Tensor],
    value: Tensor,
    tied: _Tied,
    free: set[str],
    size: tuple[int, int],
) -> Tensor:
    """The scales of what a node gives."""
    operation = node.operation
    fixed = torch.full_like(value, FIXED, dtype=torch.float64)
    if node.moves:
        return apply_move(operation, inputs, size)
    if getattr(operation, "clamp", Clamp()) in (Clamp(), Clamp(lower=0.0)):
        if node.layer is not None and node.layer in free:
            tied.read[node.layer] = tied.by_channel(inputs[0])
            new = tied.written[node.layer] = tied.new(value.shape[1])
            return fixed.new_tensor(new).reshape(1, -1, 1, 1).expand_as(value)
        if isinstance(operation, Add):
            return tied.pairwise(*inputs).expand_as(value)
        if isinstance(operation, Multiply):
            for one, other in (inputs, inputs[::-1]):
                if tied.is_fixed(other):
                    return one.expand_as(value)
    tied.fix(*inputs)
    return fixed


def _free_layers(graph: Graph, layers: dict[str, nn.Module]) -> set[str]:
    """Those that run once, have a weight of their own, and are ungrouped convolutions."""
    used = [node.layer for node in graph.nodes if node.layer is not None]
    weights = [id(layers[name].get_parameter("weight")) for name in set(used)]
    return {
        node.layer
        for node in graph.nodes
        if isinstance(node.operation, Conv)
        and node.layer is not None
        and node.operation.groups == 1
        and used.count(node.layer) == 1
        and weights.count(id(layers[node.layer].get_parameter("weight"))) == 1
    }
