"""Codes that a node's arithmetic is hardest on: extremes, ties, limits, overflow.

A layer gets one small picture for each case, in which one output meets the whole kernel. Inputs are
found for wanted sums, which not every layer can reach; they need not occur in the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from quantisp.quantization.activations.rescaling import Rescale
from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import Add, ConvTranspose, Linear, Multiply, Node
from quantisp.quantization.integer import Codes, IntegerNetwork, NodeIntegers, Weights
from quantisp.quantization.integer.bounds import channel_bounds

__all__ = ["Corners", "corner_cases"]

MOST_CHANNELS = 6
TIES = 4
TRIES = 6
SEARCHED = 1 << 14
MOST_PAIRS = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Corners:
    """Inputs of one node.

    Args:
        inputs: codes of each.
        cases: what each picture of the batch is there for; of nodes without weights, each column.
    """

    inputs: tuple[Int[Tensor, ...], ...]
    cases: tuple[str, ...]


def corner_cases(network: IntegerNetwork, node: Node) -> Corners | None:
    """The corner cases of a node; None for the input and for what only moves codes."""
    own = network.integers[node.name]
    given = [network.integers[name].codes for name in node.inputs]
    if own.weights is not None and own.rescale is not None:
        return _layer(network, node, own.weights, own.rescale, given[0])
    if not given or node.moves:
        return None
    if isinstance(node.operation, Add | Multiply):
        return _pairs(node, own, given)
    every = torch.arange(given[0].low, given[0].high + 1).reshape(1, 1, 1, -1)
    return Corners(inputs=(every,), cases=("every code",))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Output:
    """One output of a layer, as a sum over all of its input.

    Args:
        coefficients: the weight that each input code meets.
        bias: of it.
        low, high: of inputs.
    """

    coefficients: Int[Tensor, ...]
    bias: int
    low: int
    high: int

    def extreme(self, sign: int) -> Int[Tensor, ...]:
        """The input with the greatest sum, or the least one."""
        up = self.coefficients * sign > 0
        down = self.coefficients * sign < 0
        zero = min(max(0, self.low), self.high)
        x = torch.where(up, self.high, torch.where(down, self.low, zero))
        return x.to(torch.int64)

    def total(self, x: Int[Tensor, ...]) -> int:
        """The exact sum."""
        return int((self.coefficients * x).sum()) + self.bias

    def reaching(self, wanted: int, generator: torch.Generator) -> Int[Tensor, ...] | None:
        """An input with that very sum, if a few tries find one: the largest weights move first."""
        flat = self.coefficients.flatten()
        order: list[int] = flat.abs().argsort(descending=True).tolist()
        weights: list[int] = flat.tolist()
        for _ in range(TRIES):
            span = (self.low, self.high + 1)
            x: list[int] = torch.randint(*span, (len(weights),), generator=generator).tolist()
            missing = wanted - self.bias - sum(w * v for w, v in zip(weights, x, strict=True))
            for k in order:
                if not missing or not weights[k]:
                    break
                moved = min(max(x[k] + round(missing / weights[k]), self.low), self.high)
                missing -= weights[k] * (moved - x[k])
                x[k] = moved
            if not missing:
                return torch.tensor(x).reshape(self.coefficients.shape)
        return None


def _layer(
    network: IntegerNetwork, node: Node, weights: Weights, rescale: Rescale, given: Codes
) -> Corners | None:
    generator = torch.Generator().manual_seed(0)
    own = network.integers[node.name]
    shape = _least_shape(node, weights)
    pictures = [torch.full(shape, value) for value in (0, given.low, given.high)]
    pictures = [x.clamp(given.low, given.high) for x in pictures]
    cases = ["all 0", "all at the least code", "all at the greatest code"]
    ends = torch.tensor([given.low, given.high])
    for _ in range(2):
        pictures.append(ends[torch.randint(0, 2, shape, generator=generator)])
        cases.append("ends at random")
    down, up = channel_bounds(node, weights.codes, given.low, given.high)
    widest: list[int] = (up - down).argsort(descending=True)[:MOST_CHANNELS].tolist()
    extreme = (int((up + weights.bias).argmax()), int((down + weights.bias).argmin()))
    position = _position(node, weights, shape)
    for channel in sorted({*widest, *extreme}):
        output = _output(node, weights, given, shape, (channel, position))
        for sign, name in ((1, "greatest"), (-1, "least")):
            pictures.append(output.extreme(sign))
            cases.append(f"channel {channel}: {name} sum")
        multiplier = int(rescale.multiplier[0].expand(len(weights.bias))[channel])
        shift = int(rescale.shift.expand(len(weights.bias))[channel])
        for name, wanted in _targets(network, own, multiplier, shift):
            found = output.reaching(wanted, generator)
            if found is not None:
                pictures.append(found)
                cases.append(f"channel {channel}: {name}, sum {wanted}")
    return _without_errors(network, node, weights, pictures, cases)


def _targets(
    network: IntegerNetwork, own: NodeIntegers, multiplier: int, shift: int
) -> Iterator[tuple[str, int]]:
    """Sums to reach: in the middle between two codes, about the limits, about the accumulator's."""
    # acc * M is a tie where acc is an odd multiple of 2^(s - 1 - zeros at the end of M).
    zeros = (multiplier & -multiplier).bit_length() - 1
    if multiplier and zeros < shift:
        middle = 1 << (shift - 1 - zeros)
        for count in range(TIES):
            odd = 2 * (count // 2) + 1
            yield "tie", middle * (odd if count % 2 == 0 else -odd)
    for name, code in (("greatest code", own.codes.high), ("least code", own.codes.low)):
        if multiplier:
            edge = (code << shift) // multiplier
            beyond = ((1 << shift) // multiplier + 1) * (1 if code == own.codes.high else -1)
            yield name, edge
            yield f"beyond the {name}", edge + beyond
    accumulator = network.accumulator
    if accumulator is not None:
        for name, end, step in (
            ("greatest", accumulator.greatest, 1),
            ("least", accumulator.least, -1),
        ):
            yield f"the accumulator's {name}", end
            yield f"overflow by one at the accumulator's {name}", end + step


def _least_shape(node: Node, weights: Weights) -> tuple[int, int, int, int]:
    """Of an input in which one output meets the whole kernel."""
    operation: Any = node.operation
    shape = weights.codes.shape
    if isinstance(operation, Linear):
        return 1, 1, 1, shape[1]
    reach = [d * (k - 1) for d, k in zip(operation.dilation, shape[2:], strict=True)]
    if isinstance(operation, ConvTranspose):
        height, width = (-(-r // s) + 1 for r, s in zip(reach, operation.stride, strict=True))
        return 1, shape[0], height, width
    # Where the first whole window begins.
    begins = [-p % s for p, s in zip(operation.padding, operation.stride, strict=True)]
    height, width = (b + r + 1 for b, r in zip(begins, reach, strict=True))
    return 1, shape[1] * operation.groups, height, width


def _position(node: Node, weights: Weights, shape: tuple[int, ...]) -> int:
    """The output, counted within its channel, that meets most of the kernel."""
    ones = torch.ones_like(weights.codes, dtype=torch.float64)
    met = apply_weight(node.operation, torch.ones(shape, dtype=torch.float64), ones, None)
    return 0 if isinstance(node.operation, Linear) else int(met[0, 0].argmax())


def _output(
    node: Node, weights: Weights, given: Codes, shape: tuple[int, ...], where: tuple[int, int]
) -> _Output:
    """A layer is linear: its gradient is what each input is multiplied by."""
    channel, position = where
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        y = apply_weight(node.operation, x, weights.codes.double(), None)
        linear = isinstance(node.operation, Linear)
        chosen = y[..., channel].sum() if linear else y[0, channel].flatten()[position]
        (gradient,) = torch.autograd.grad(chosen, x)
    return _Output(
        coefficients=gradient.round().to(torch.int64),
        bias=int(weights.bias[channel]),
        low=given.low,
        high=given.high,
    )


def _without_errors(
    network: IntegerNetwork,
    node: Node,
    weights: Weights,
    pictures: list[Tensor],
    cases: list[str],
) -> Corners | None:
    """Without the cases whose sums are an error in this network; None if that leaves none."""
    x = torch.cat([picture.to(torch.int64) for picture in pictures])
    accumulator = network.accumulator
    if accumulator is not None and accumulator.overflow == "error":
        sums = apply_weight(node.operation, x.double(), weights.codes.double(), None)
        linear = isinstance(node.operation, Linear)
        sums += weights.bias.double().reshape(-1 if linear else (-1, 1, 1))
        flat = sums.flatten(1)
        kept = (flat.amin(dim=1) >= accumulator.least) & (flat.amax(dim=1) <= accumulator.greatest)
        if not bool(kept.any()):
            return None
        x = x[kept]
        cases = [case for case, keep in zip(cases, kept.tolist(), strict=True) if keep]
    return Corners(inputs=(x,), cases=tuple(cases))


def _pairs(node: Node, own: NodeIntegers, given: list[Codes]) -> Corners:
    """Ends of both inputs against each other, ties, and others at random."""
    generator = torch.Generator().manual_seed(0)
    sides = [
        sorted(
            {c.low, c.low + 1, *(v for v in (-1, 0, 1) if c.low <= v <= c.high), c.high - 1, c.high}
        )
        for c in given
    ]
    ends = torch.cartesian_prod(*(torch.tensor(side) for side in sides))
    drawn = torch.stack(
        [torch.randint(c.low, c.high + 1, (SEARCHED,), generator=generator) for c in given], dim=1
    )
    ties = drawn[:0]
    if own.rescale is not None:
        columns = own.rescale.multiplier[:, 0]
        shift = int(own.rescale.shift[0])
        product = isinstance(node.operation, Multiply)
        scaled = drawn.prod(dim=1) * columns[0] if product else (drawn * columns).sum(dim=1)
        ties = drawn[(scaled & ((1 << shift) - 1)) == 1 << (shift - 1)][:MOST_PAIRS]
    both = torch.cat([ends, ties, drawn[:MOST_PAIRS]])
    names = ["ends"] * len(ends) + ["tie"] * len(ties) + ["at random"] * MOST_PAIRS
    inputs = tuple(both[:, k].reshape(1, 1, 1, -1).contiguous() for k in range(2))
    return Corners(inputs=inputs, cases=tuple(names))
