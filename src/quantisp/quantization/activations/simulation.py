"""The network in integers, simulated in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.activations.placement import Placement
from quantisp.quantization.activations.steps import Step
from quantisp.quantization.activations.tensors import TensorQuantizer
from quantisp.quantization.graph.execution import check_size
from quantisp.quantization.graph.nodes import Graph

__all__ = ["SimulatedNetwork"]


class SimulatedNetwork(nn.Module):
    """Runs a graph on integers that are kept in floats.

    Places, scales M * 2^-s and tie rule are those of integer hardware. In float32 an accumulator
    beyond 2^24 is rounded, so that now and then a code differs from hardware's by one; after
    ``.double()`` there is no difference as long as accumulators stay below 37 bits.

    Args:
        placement: the graph and its quantizers.
        steps: one for each node, fitted.

    Attributes:
        graph: with a ``Requantize`` wherever two quantizers meet.
        quantizers: of each node's tensor; None is float.
        steps: one for each node.
    """

    def __init__(self, placement: Placement, steps: Sequence[Step]) -> None:
        super().__init__()
        self.placement = placement
        self.graph: Graph = placement.graph
        self.steps = nn.ModuleList(steps)
        self.quantizers: Mapping[str, TensorQuantizer | None] = {
            step.node.name: step.quantizer for step in steps
        }

    def step(self, name: str) -> Step:
        """What computes the tensor of that name."""
        return next(step for step in self._steps() if step.node.name == name)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The output in real numbers: codes times scale.

        Args:
            x: real numbers, as the graph takes them.
        """
        output = self.graph.output
        quantizer = self.quantizers[output]
        codes = self.run(x, (output,))[output]
        if quantizer is None:
            return codes
        # The scale of the output is one over a whole number.
        return codes / quantizer.qmax

    @torch.no_grad()
    def run(
        self, x: Float[Tensor, "n c h w"], wanted: Sequence[str]
    ) -> dict[str, Float[Tensor, ...]]:
        """The codes (or real values, in float) of some tensors, by name."""
        size = check_size(self.graph, x)
        last_uses = self.graph.last_uses()
        values: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for step in self._steps():
            node = step.node
            inputs = [values[name] for name in node.inputs] or [x]
            values[node.name] = step(inputs, size)
            if node.name in wanted:
                found[node.name] = values[node.name]
            for name in last_uses[node.name]:
                del values[name]
        return found

    def _steps(self) -> Iterator[Step]:
        return iter(cast("Sequence[Step]", self.steps))
