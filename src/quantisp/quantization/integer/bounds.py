"""How wide the accumulator of a layer has to be: in the worst case, and for inputs that were seen.

The worst case is exact: each product takes the end of the input's range that makes the sum largest
(or least), which one input can do for one output channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import ConvTranspose, Node
from quantisp.quantization.integer.network import Codes, IntegerNetwork, Weights, channel_axis

__all__ = ["LayerAccumulator", "channel_bounds", "signed_bits", "worst_accumulators"]


@dataclass(frozen=True, kw_only=True)
class LayerAccumulator:
    """The accumulator of one layer, bias included.

    Args:
        node, layer: their names.
        products: how many are summed for one output.
        least, greatest: of the sums that there can be.
        bits: that hold them all, with sign.
        seen_bits: that hold all sums of some inputs; None where none were run.
    """

    node: str
    layer: str
    products: int
    least: int
    greatest: int
    bits: int
    seen_bits: int | None = None


def signed_bits(least: int, greatest: int) -> int:
    """How many bits hold two numbers in two's complement.

    >>> signed_bits(-128, 127), signed_bits(0, 128), signed_bits(0, 0)
    (8, 9, 1)
    """
    return 1 + max(_magnitude(least), _magnitude(greatest))


def _magnitude(value: int) -> int:
    return (~value if value < 0 else value).bit_length()


def channel_bounds(
    node: Node, weights: Int[Tensor, "*shape"], low: int, high: int
) -> tuple[Int[Tensor, " channels"], Int[Tensor, " channels"]]:
    """The least and the greatest sum of products of each output channel.

    Args:
        node: a layer.
        weights: its codes, or a part of them.
        low, high: of its inputs; zeros come in from padding.
    """
    low, high = min(low, 0), max(high, 0)
    rows = _rows(node, weights.to(torch.int64))
    up, down = rows.clamp(min=0).sum(dim=1), rows.clamp(max=0).sum(dim=1)
    return up * low + down * high, up * high + down * low


def _rows(node: Node, weights: Tensor) -> Int[Tensor, "channels products"]:
    operation = node.operation
    if isinstance(operation, ConvTranspose):
        grouped = weights.unflatten(0, (operation.groups, -1)).transpose(1, 2)
        return grouped.flatten(0, 1).flatten(1)
    return weights.flatten(1)


def worst_accumulators(network: IntegerNetwork) -> tuple[LayerAccumulator, ...]:
    """The accumulator of each layer, in the order of the graph."""
    return tuple(_worst(node, weights, given) for node, _, weights, given in network.layers())


def _worst(node: Node, weights: Weights, given: Codes) -> LayerAccumulator:
    down, up = channel_bounds(node, weights.codes, given.low, given.high)
    least, greatest = int((down + weights.bias).min()), int((up + weights.bias).max())
    return LayerAccumulator(
        node=node.name,
        layer=node.layer or "",
        products=_rows(node, weights.codes).shape[1],
        least=least,
        greatest=greatest,
        bits=signed_bits(least, greatest),
    )


def exact_sums(node: Node, weights: Weights, x: Int[Tensor, ...]) -> Float[Tensor, ...]:
    """Bias plus products, in float64, which holds them exactly below 2^53."""
    axis = channel_axis(node)
    bias = weights.bias.double().reshape(-1, *(1,) * (-1 - axis))
    return apply_weight(node.operation, x.double(), weights.codes.double(), None).add_(bias)


def seen_bits(network: IntegerNetwork, codes: Mapping[str, Int[Tensor, ...]]) -> dict[str, int]:
    """The bits that hold the sums of each layer, for the codes of its input."""
    found: dict[str, int] = {}
    for node, _, weights, _ in network.layers():
        sums = exact_sums(node, weights, codes[node.inputs[0]])
        found[node.name] = signed_bits(int(sums.min()), int(sums.max()))
    return found
