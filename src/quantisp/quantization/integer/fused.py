"""Layers whose rescaling is done by the operator for bytes itself: those that only shift.

The operator multiplies the sum by a float32 number for each channel, adds another one, rounds half
to even and saturates to eight bits. With powers of two all of it is exact while sums, counted in
halves, stay below 2^23. Half up is half to even of the sum plus one half: no other number becomes a
tie, and ties go up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from quantisp.quantization.activations.rescaling import Rescale
from quantisp.quantization.activations.settings import TieRule
from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import Conv, Node
from quantisp.quantization.integer.bounds import LayerAccumulator
from quantisp.quantization.integer.int8 import as_bytes, convolution
from quantisp.quantization.integer.network import Codes, NodeIntegers, Weights
from quantisp.quantization.integer.products import LayerProduct

__all__ = ["fused_layer", "rounding_is_exact"]

MOST = 1 << 22
# Beyond it, float32's range might end.
MOST_SHIFT = 40


def fused_layer(
    node: Node,
    own: NodeIntegers,
    weights: Weights,
    given: Codes,
    *,
    product: LayerProduct,
    worst: LayerAccumulator,
    tie_rule: TieRule,
) -> Callable[[Tensor], Tensor] | None:
    """From an input's codes to the output's, or None where it would not be exact.

    Args:
        node, own, weights, given: of the layer.
        product: how its sums would be computed otherwise.
        worst: its accumulator.
        tie_rule: of the network.
    """
    rescale, codes = own.rescale, own.codes
    if not isinstance(node.operation, Conv) or rescale is None:
        return None
    if product.kind != "int8" or product.parts != 1 or max(-worst.least, worst.greatest) >= MOST:
        return None
    dtype = torch.uint8 if codes.low >= 0 else torch.int8
    held = torch.iinfo(dtype)
    if codes.low < held.min or codes.high > held.max or not _shifts_alone(rescale):
        return None
    if not rounding_is_exact():
        return None
    channels = len(weights.bias)
    ratio = rescale.ratio()[0].expand(channels)
    shown = weights.bias.double() + (0.5 if tie_rule == "half_up" else 0.0)
    signed = given.low < 0
    run = convolution(
        node.operation,
        weights.codes,
        zero=128 if signed else 0,
        scale=ratio.float().contiguous(),
        bias=(shown * ratio).float(),
        dtype=dtype,
    )
    narrow = codes.low > held.min or codes.high < held.max

    def layer(x: Tensor) -> Tensor:
        found = run(as_bytes(x, signed=signed))
        return found.clamp_(codes.low, codes.high) if narrow else found

    return layer


def _shifts_alone(rescale: Rescale) -> bool:
    multiplier = rescale.multiplier
    powers = bool(((multiplier > 0) & (multiplier & (multiplier - 1) == 0)).all())
    return powers and int(rescale.shift.max()) <= MOST_SHIFT


@cache
def rounding_is_exact() -> bool:
    """Whether the operator rounds and saturates as it should, ties and ends included."""
    generator = torch.Generator().manual_seed(1)
    operation = Conv(layer="", stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    weight = torch.randint(-128, 128, (48, 8, 3, 3), generator=generator)
    bias = torch.randint(-(1 << 20), 1 << 20, (48,), generator=generator).double()
    # Every second sum in the middle between two codes, where the shift is 1.
    shift = torch.arange(48) % 16 + 1
    ratio = torch.exp2(-shift.double())
    for zero in (0, 128):
        x = torch.randint(0, 256, (1, 8, 16, 24), generator=generator, dtype=torch.uint8)
        sums = apply_weight(operation, x.double() - zero, weight.double(), None)
        sums += bias.view(-1, 1, 1)
        for half in (0.0, 0.5):
            exact = sums * ratio.view(-1, 1, 1)
            wanted = torch.floor(exact + 0.5) if half else torch.round(exact)
            for dtype in (torch.uint8, torch.int8):
                held = torch.iinfo(dtype)
                try:
                    run = convolution(
                        operation,
                        weight,
                        zero=zero,
                        scale=ratio.float(),
                        bias=((bias + half) * ratio).float(),
                        dtype=dtype,
                    )
                    found = run(as_bytes(x, signed=False))
                except (AttributeError, RuntimeError, NotImplementedError):
                    return False
                if not torch.equal(found.double(), wanted.clamp(held.min, held.max)):
                    return False
    return True
