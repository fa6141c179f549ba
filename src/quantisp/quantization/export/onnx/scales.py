"""The real numbers that codes stand for in a file, and where float32 is exact with them.

What decides a code is the ratio ``M * 2^-s`` of a node, not a scale. A file's scales are labels
that are chosen so that ratios come out: each tensor has one of its own, what computes sees its
inputs on scales that are the ratio times the result's, and weights take up what is left.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from jaxtyping import Float

from quantisp.errors import ModelError
from quantisp.quantization.graph.nodes import Add, Input, Multiply, Node
from quantisp.quantization.integer.bounds import channel_bounds
from quantisp.quantization.integer.network import Codes, IntegerNetwork, NodeIntegers

__all__ = ["EXACT", "allowed_difference", "ratios", "tensor_scales"]

EXACT = 1 << 24
"""float32 holds all whole numbers up to it."""
LEAST, MOST = 2.0**-60, 2.0**60


def tensor_scales(network: IntegerNetwork) -> dict[str, float]:
    """The scale of each tensor, which float32 holds.

    With multipliers it is the network's own. With powers of two it is the power of two next to it:
    ratios stay what they are, and nothing is rounded on the way.
    """
    powers = network.power_of_two
    found: dict[str, float] = {}
    for node, own in network:
        scale = min(max(own.codes.scale, LEAST), MOST)
        if node.moves:
            scale = found[node.inputs[0]]
        elif powers:
            scale = 2.0 ** round(math.log2(scale))
        found[node.name] = float(np.float32(scale))
    return found


def ratios(own: NodeIntegers, node: Node) -> Float[np.ndarray, "inputs channels"]:
    """``M * 2^-s`` of a node, exactly, in float64.

    Raises:
        ModelError: it has none.
    """
    if own.rescale is None:
        raise ModelError(f"expected multipliers and shifts of node {node.name!r}, found none")
    return own.rescale.ratio().reshape(own.rescale.multiplier.shape).numpy()


def allowed_difference(network: IntegerNetwork, node: Node) -> int:
    """By how many codes a node of a file may differ from the network's, given equal inputs.

    None where codes are moved or looked up, and none with powers of two and ties to the even one,
    while sums stay below 2^24; else one.
    """
    own = network.integers[node.name]
    if node.moves or own.table is not None:
        return 0
    # The product of a real number and 2^b - 1 has more than 24 bits.
    if isinstance(node.operation, Input):
        return 1
    exact = network.power_of_two and network.tie_rule == "half_even"
    return int(not (exact and _largest_sum(network, node, own) < EXACT))


def _largest_sum(network: IntegerNetwork, node: Node, own: NodeIntegers) -> int:
    """The largest magnitude that there can be on the way, in the unit in which all is whole."""
    given = [network.integers[name].codes for name in node.inputs]
    magnitudes = [_magnitude(codes) for codes in given]
    if own.weights is not None:
        down, up = channel_bounds(node, own.weights.codes, given[0].low, given[0].high)
        bias = own.weights.bias
        ends = (down, up, bias, down + bias, up + bias)
        return max(int(end.abs().max()) for end in ends)
    if isinstance(node.operation, Multiply):
        return magnitudes[0] * magnitudes[1]
    if isinstance(node.operation, Add) and own.rescale is not None:
        factors = [abs(int(row[0])) for row in own.rescale.multiplier]
        unit = reduce(math.gcd, factors) or 1
        return sum(m * f // unit for m, f in zip(magnitudes, factors, strict=True))
    return max(magnitudes)


def _magnitude(codes: Codes) -> int:
    return max(abs(codes.low), abs(codes.high))
