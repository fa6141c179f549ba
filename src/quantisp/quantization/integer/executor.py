"""Running an integer network fast, to the same codes as the specification.

Tensors of codes are kept in the narrowest of uint8, int8, int16 and int32 that holds them, channels
last. Sums of products are exact in every layer (``products``); what follows them is int64
arithmetic (``kernels``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quantisp.errors import ModelError, RunError
from quantisp.quantization.activations.rescaling import MULTIPLIER_BITS
from quantisp.quantization.graph import pad_inside
from quantisp.quantization.graph.execution import Picture, check_size
from quantisp.quantization.graph.nodes import Input, Node
from quantisp.quantization.integer import kernels
from quantisp.quantization.integer.bounds import LayerAccumulator, seen_bits, worst_accumulators
from quantisp.quantization.integer.elements import (
    by_element,
    code_dtype,
    encoded,
    laid_out,
    last_axis,
    moved,
)
from quantisp.quantization.integer.fused import fused_layer
from quantisp.quantization.integer.network import (
    IntegerNetwork,
    NodeIntegers,
    channel_axis,
)
from quantisp.quantization.integer.products import Kind, LayerProduct, choose_product

__all__ = ["IntegerExecutor"]

INT64_BITS = 63
NO_LIMIT = 1 << 62


class IntegerExecutor(nn.Module):
    """An integer network as a module, on the CPU.

    Args:
        network: what to run.
        padding: a network whose ``pad_input`` lengthens the input to sizes that the graph takes,
            and as which the output is cropped; None takes inputs as the graph does.
        kinds: of kernels to choose from, for each layer; None is all that are exact here.

    Attributes:
        products: how each layer's sums are computed, by the node's name.
        fused: the layers that the operator for bytes also rescales, by the node's name.

    Raises:
        ModelError: sums that 63 bits do not hold.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        padding: nn.Module | None = None,
        *,
        kinds: tuple[Kind, ...] | None = None,
    ) -> None:
        super().__init__()
        self.integers = network
        # Not a child: its parameters are not used, and not to be moved about.
        self._padding = (padding,)
        self.pattern: Any = getattr(padding, "pattern", None)
        self.worst = {found.node: found for found in worst_accumulators(network)}
        self.products: dict[str, LayerProduct] = {
            node.name: choose_product(node, weights, given, kinds)
            for node, _, weights, given in network.layers()
        }
        self._rescaling = {
            node.name: _Rescaling.of(network, own, self.products[node.name], self.worst[node.name])
            for node, own, _, _ in network.layers()
        }
        self.fused = {
            node.name: layer
            for node, own, weights, given in network.layers()
            if not self._rescaling[node.name].limited
            and (
                layer := fused_layer(
                    node,
                    own,
                    weights,
                    given,
                    product=self.products[node.name],
                    worst=self.worst[node.name],
                    tie_rule=network.tie_rule,
                )
            )
        }
        self._tables = {
            node.name: own.table.numpy().astype(np.int32)
            for node, own in network
            if own.table is not None
        }

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The output in real numbers: codes times scale, in float32.

        Args:
            x: real numbers; in [0, 1] is what the input's codes stand for.

        Raises:
            ModelError: a size that the graph does not take.
            RunError: NaN in the input, or a sum that does not fit an accumulator.
        """
        (padding,) = self._padding
        padded = x if padding is None else pad_inside(padding, x)
        output = self.integers.graph.output
        codes = self.run(padded, (output,))[output]
        height, width = (codes.shape[a] * x.shape[a] // padded.shape[a] for a in (2, 3))
        # The scale of the output is one over a whole number.
        steps = self.integers.integers[output].codes.qmax
        return codes[:, :, :height, :width].float().div_(float(steps))

    @torch.no_grad()
    def run(
        self, x: Float[Tensor, "n c h w"], wanted: Sequence[str]
    ) -> dict[str, Int[Tensor, ...]]:
        """The codes of some tensors, by name, as int32.

        Args:
            x: real numbers, as the graph takes them.
            wanted: names of nodes.

        Raises:
            ModelError, RunError: as ``forward``.
        """
        graph = self.integers.graph
        size = check_size(graph, x)
        last_uses = graph.last_uses()
        values: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for node, own in self.integers:
            inputs = [values[name] for name in node.inputs] or [x]
            values[node.name] = self._computed(node, own, inputs, size)
            if node.name in wanted:
                found[node.name] = values[node.name].to(torch.int32)
            for name in last_uses[node.name]:
                del values[name]
        return found

    @torch.no_grad()
    def run_node(
        self, name: str, inputs: Sequence[Int[Tensor, ...]], picture: Picture
    ) -> Int[Tensor, ...]:
        """The codes of one node's tensor, as int32, from those of its inputs.

        Args:
            name: of any node but the input.
            inputs: codes within the limits of the nodes that they stand for.
            picture: height and width of the network's input, for sizes that depend on it.

        Raises:
            ModelError, RunError: as ``forward``.
        """
        node, own = self.integers.graph.node(name), self.integers.integers[name]
        given = [
            laid_out(x.to(code_dtype(self.integers.integers[source].codes)))
            for x, source in zip(inputs, node.inputs, strict=True)
        ]
        return self._computed(node, own, given, picture).to(torch.int32)

    def observe(self, inputs: Sequence[Float[Tensor, "_ _ _ _"]]) -> dict[str, int]:
        """How many bits hold the sums of each layer for some inputs, by the node's name.

        Accumulators are as wide as they have to be here, whatever the network's are.
        """
        free = IntegerExecutor(self.integers.with_accumulator(None))
        names = [node.inputs[0] for node, _, _, _ in self.integers.layers()]
        found: dict[str, int] = {}
        for x in inputs:
            for name, bits in seen_bits(self.integers, free.run(x, names)).items():
                found[name] = max(bits, found.get(name, 0))
        return found

    def _computed(
        self, node: Node, own: NodeIntegers, inputs: list[Tensor], size: Picture
    ) -> Tensor:
        if isinstance(node.operation, Input):
            return encoded(inputs[0], own.codes, even=self._even)
        if node.moves:
            return moved(node, own.codes, inputs, size)
        if node.name in self.products:
            return self._layer(node, own, inputs[0])
        out = torch.empty_like(inputs[0], dtype=code_dtype(own.codes))
        by_element(
            own, self._tables.get(node.name), inputs, out, self._lowest(node), node, self._even
        )
        return out

    @property
    def _even(self) -> int:
        return int(self.integers.tie_rule == "half_even")

    def _lowest(self, node: Node) -> int:
        return self.integers.integers[node.inputs[0]].codes.low

    def _layer(self, node: Node, own: NodeIntegers, x: Tensor) -> Tensor:
        if node.name in self.fused:
            return laid_out(self.fused[node.name](x))
        # Channels come last in both, but a picture's axes are named in another order.
        swap = channel_axis(node) == -3
        parts = [last_axis(part, swap).contiguous() for part in self.products[node.name].run(x)]
        out = torch.empty(parts[0].shape, dtype=code_dtype(own.codes))
        rows = tuple(part.reshape(-1, part.shape[-1]).numpy() for part in parts)
        target = out.reshape(-1, out.shape[-1]).numpy()
        rescaling = self._rescaling[node.name]

        def work(part: slice) -> int:
            return kernels.rescale(
                tuple(row[part] for row in rows),
                *rescaling.arguments,
                self._even,
                *rescaling.limits,
                own.codes.low,
                own.codes.high,
                target[part],
            )

        outside = sum(kernels.in_parts(len(target), work))
        accumulator = self.integers.accumulator
        if outside and accumulator is not None and accumulator.overflow == "error":
            raise RunError(
                f"expected sums of {accumulator.bits} bits in layer {node.layer!r}, {outside} of "
                f"{out.numel()} are larger: let them wrap or clamp, or plan fewer bits"
            )
        return out.permute(0, 3, 1, 2) if swap else laid_out(out)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rescaling:
    """What the kernel takes.

    Args:
        arguments: weighing, bias, sign, multipliers and shifts.
        limits: least and greatest sum, and by how many bits it is shifted up and down to wrap.
    """

    arguments: tuple[Any, ...]
    limits: tuple[int, int, int]

    @property
    def limited(self) -> bool:
        """Whether a sum may not fit the accumulator."""
        return self.limits != (-NO_LIMIT, NO_LIMIT, 0)

    @classmethod
    def of(
        cls,
        network: IntegerNetwork,
        own: NodeIntegers,
        product: LayerProduct,
        worst: LayerAccumulator,
    ) -> _Rescaling:
        accumulator, rescale, weights = network.accumulator, own.rescale, own.weights
        if rescale is None or weights is None:
            raise ModelError(f"expected weights, multipliers and shifts in node {worst.node!r}")
        limits, bits = (-NO_LIMIT, NO_LIMIT, 0), worst.bits
        if accumulator is not None and accumulator.bits < worst.bits:
            limits = (accumulator.least, accumulator.greatest, 0)
            if accumulator.overflow == "wrap":
                limits = (-NO_LIMIT, NO_LIMIT, 64 - accumulator.bits)
        if bits + MULTIPLIER_BITS >= INT64_BITS:
            raise ModelError(
                f"expected sums of at most {INT64_BITS - MULTIPLIER_BITS - 1} bits, those of layer "
                f"{worst.layer!r} may have {bits}: plan fewer bits"
            )
        channels = len(weights.bias)
        arrays = [
            weights.bias,
            product.sign,
            rescale.multiplier[0].expand(channels),
            rescale.shift.expand(channels),
        ]
        weighing = np.array(product.weighing, dtype=np.int64)
        arguments = (weighing, *(a.contiguous().numpy() for a in arrays))
        return cls(arguments=arguments, limits=limits)
