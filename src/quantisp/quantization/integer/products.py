"""Sums of products that are exact, by kernels that are made for something else.

A convolution is split into parts, each of them exact, whose sum (each shifted to the left) it is:

* ``int8``: operands in limbs of eight bits, by the operator for bytes where it is exact. Its
  float32 output holds sums below 2^24.
* ``float32``: limbs so narrow that every partial sum stays below 2^24, which float32 adds exactly
  in whatever order.
* ``float64``: the same below 2^53; the last resort, and always there.

The cheapest is used, by the number of its parts and what a part takes here: see ``COST``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import Conv, Linear, Node
from quantisp.quantization.integer import kernels
from quantisp.quantization.integer.bounds import channel_bounds
from quantisp.quantization.integer.int8 import (
    as_bytes,
    channels_last,
    convolution,
    int8_is_exact,
)
from quantisp.quantization.integer.network import Codes, Weights

__all__ = ["Kind", "LayerProduct", "choose_product"]

Kind = Literal["int8", "float32", "float64"]
# What a part takes, in units of a float32 convolution.
COST: dict[Kind, float] = {"int8": 0.25, "float32": 1.0, "float64": 16.0}
FLOAT32_HOLDS = 1 << 24
FLOAT64_HOLDS = 1 << 53
BYTE = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Limb:
    """Eight bits or fewer of each input.

    Args:
        shift: of the lowest of its bits.
        low, high: of its values.
    """

    shift: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerProduct:
    """How the sums of one layer are computed.

    Args:
        kind: of the kernel.
        weighing: by how many bits each part's sums are shifted to the left.
        sign: -1 for output channels whose weights were turned round, else 1.
        run: from the codes of an input to the parts, as float tensors.
    """

    kind: Kind
    weighing: tuple[int, ...]
    sign: Int[Tensor, " channels"]
    run: Callable[[Tensor], list[Tensor]]

    @property
    def parts(self) -> int:
        """How many convolutions it takes."""
        return len(self.weighing)


def choose_product(
    node: Node, weights: Weights, given: Codes, kinds: tuple[Kind, ...] | None = None
) -> LayerProduct:
    """The cheapest way to exact sums.

    Args:
        node: the layer.
        weights: its weights.
        given: the codes of its input.
        kinds: what there is to choose from; None is everything that is exact here.

    Raises:
        ModelError: sums that even float64 does not hold.
    """
    if kinds is None:
        kinds = ("int8", "float32", "float64") if int8_is_exact() else ("float32", "float64")
    makers = {"int8": _int8, "float32": _float32, "float64": _float64}
    found = [made for kind in kinds if (made := makers[kind](node, weights, given)) is not None]
    if not found:
        raise ModelError(
            f"expected sums of products below 2^53, those of layer {node.layer!r} may be larger: "
            "plan fewer bits"
        )
    return min(found, key=lambda product: product.parts * COST[product.kind])


def _float64(node: Node, weights: Weights, given: Codes) -> LayerProduct | None:
    if not _fits(node, weights.codes, given.low, given.high, FLOAT64_HOLDS):
        return None
    codes = weights.codes.double()
    return LayerProduct(
        kind="float64",
        weighing=(0,),
        sign=torch.ones(len(weights.bias), dtype=torch.int64),
        run=lambda x: [apply_weight(node.operation, x.double(), codes, None)],
    )


def _float32(node: Node, weights: Weights, given: Codes) -> LayerProduct | None:
    """As few limbs of the input as will do, or none."""
    for count in (1, 2, 3):
        limbs = _limbs(given, -(-given.bits // count))
        if all(_fits(node, weights.codes, b.low, b.high, FLOAT32_HOLDS) for b in limbs):
            break
    else:
        return None
    codes = weights.codes.float()
    if codes.ndim == 4:
        codes = codes.to(memory_format=torch.channels_last)

    def run(x: Tensor) -> list[Tensor]:
        if len(limbs) == 1:
            return [apply_weight(node.operation, x.float(), codes, None)]
        return [
            apply_weight(node.operation, _cut(x, limb, limbs).float(), codes, None)
            for limb in limbs
        ]

    return LayerProduct(
        kind="float32",
        weighing=tuple(limb.shift for limb in limbs),
        sign=torch.ones(len(weights.bias), dtype=torch.int64),
        run=run,
    )


def _limbs(given: Codes, width: int) -> list[Limb]:
    """An input in limbs of so many bits, all but the last one not negative."""
    limbs: list[Limb] = []
    low, high, shift = min(given.low, 0), max(given.high, 0), 0
    while low < -(1 << (width - 1)) or high >= 1 << (width if low == 0 else width - 1):
        limbs.append(Limb(shift=shift, low=0, high=(1 << width) - 1))
        low, high, shift = low >> width, high >> width, shift + width
    return [*limbs, Limb(shift=shift, low=low, high=high)]


def _cut(x: Tensor, limb: Limb, limbs: list[Limb]) -> Tensor:
    x = x.to(torch.int32) >> limb.shift
    return x if limb is limbs[-1] else x & limb.high


def _fits(node: Node, codes: Tensor, low: int, high: int, most: int) -> bool:
    """Whether every partial sum, in whatever order, is smaller."""
    largest = max(abs(low), abs(high))
    _, up = channel_bounds(node, codes.abs(), 0, largest)
    return int(up.max()) < most


def _int8(node: Node, weights: Weights, given: Codes) -> LayerProduct | None:
    operation: Any = node.operation
    if not isinstance(operation, Conv | Linear):
        return None
    limbs = _limbs(given, BYTE)
    codes, sign = _turned(weights.codes)
    parts: list[tuple[int, int, Tensor]] = []
    for index, limb in enumerate(limbs):
        for shift, bytes_ in _weight_limbs(codes):
            found = _narrowed(node, bytes_, limb)
            if found is None:
                return None
            parts += [(index, limb.shift + shift, piece) for piece in found]
    convolutions = [
        (index, convolution(operation, piece, zero=128 if limbs[index].low < 0 else 0))
        for index, _, piece in parts
    ]
    flat = isinstance(operation, Linear)

    def run(x: Tensor) -> list[Tensor]:
        # A matrix product is a convolution over as many px as there are rows.
        picture = x.reshape(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2) if flat else x
        split = _bytes(picture, limbs)
        found = [convolution(split[index]) for index, convolution in convolutions]
        if flat:
            found = [y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1) for y in found]
        return found

    return LayerProduct(
        kind="int8", weighing=tuple(shift for _, shift, _ in parts), sign=sign, run=run
    )


def _turned(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of channels turned round where that keeps them within two limbs.

    The largest number in two limbs of int8 is 127 * 256 + 127, the least -128 * 256 - 128.
    """
    rows = codes.flatten(1).to(torch.int64)
    greatest, least = rows.amax(dim=1), rows.amin(dim=1)
    turn = (greatest > 127 * 257) & (least >= -127 * 257)
    sign = torch.where(turn, -1, 1)
    return codes.to(torch.int64) * sign.reshape(-1, *(1,) * (codes.ndim - 1)), sign


def _weight_limbs(codes: Tensor) -> list[tuple[int, Tensor]]:
    """Weights in limbs of int8, with their shifts."""
    limbs: list[tuple[int, Tensor]] = []
    shift = 0
    while int(codes.min()) < -128 or int(codes.max()) > 127:
        # From -128 to 127, so that what is left is a multiple of 256.
        below = ((codes + 128) & 255) - 128
        limbs.append((shift, below))
        codes, shift = (codes - below) >> BYTE, shift + BYTE
    return [*limbs, (shift, codes)]


def _narrowed(node: Node, codes: Tensor, limb: Limb) -> list[Tensor] | None:
    """Weights whose sum they are, and whose sums float32 holds: of some inputs each."""
    inputs = codes.shape[1]
    for count in (1, 2, 4):
        pieces = [torch.zeros_like(codes) for _ in range(min(count, inputs))]
        for index, piece in enumerate(pieces):
            kept = slice(inputs * index // len(pieces), inputs * (index + 1) // len(pieces))
            piece[:, kept] = codes[:, kept]
        if all(_fits(node, piece, limb.low, limb.high, FLOAT32_HOLDS) for piece in pieces):
            return pieces
    return None


def _bytes(x: Tensor, limbs: list[Limb]) -> list[Tensor]:
    """Each limb of an input as unsigned bytes, in the layout that convolutions want."""
    if len(limbs) == 1:
        return [as_bytes(x, signed=limbs[0].low < 0)]
    rows = channels_last(x).permute(0, 2, 3, 1)
    below, above = (torch.empty(rows.shape, dtype=torch.uint8) for _ in limbs)
    flat, first, second = (t.reshape(-1).numpy() for t in (rows, below, above))
    offset = 128 if limbs[1].low < 0 else 0
    kernels.in_parts(
        len(flat), lambda part: kernels.split(flat[part], offset, first[part], second[part])
    )
    return [below.permute(0, 3, 1, 2), above.permute(0, 3, 1, 2)]
