"""Studies in integers: the network that runs is the integer network, beside its simulation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from quantisp.errors import ModelError, SettingError
from quantisp.quantization import Plan, QuantizedModel
from quantisp.quantization.integer import Accumulator, IntegerExecutor, integer_network

__all__ = ["Execution", "IntegerTwin"]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How networks with activations in integers run, if not simulated in float32.

    Args:
        accumulator: how wide sums are kept; None is as wide as they have to be.
    """

    accumulator: Accumulator | None = None

    def describe(self) -> str:
        """In words, for the protocol and the jobs' keys."""
        accumulator = self.accumulator
        if accumulator is None:
            return "accumulators as wide as needed"
        return f"accumulators of {accumulator.bits} bits, {accumulator.overflow} beyond"

    def check_device(self, device: torch.device) -> None:
        """Refuse a device that integers do not run on.

        Raises:
            SettingError: not the CPU.
        """
        if device.type != "cpu":
            raise SettingError(
                f"expected the CPU for execution in integers, found {device.type}: pass --device "
                "cpu, or leave --execution out"
            )

    def network(self, quantized: QuantizedModel) -> IntegerTwin:
        """What runs in place of a quantized network.

        Raises:
            ModelError: a layer of it is in float.
        """
        return IntegerTwin(quantized, self.accumulator)

    def check_plans(self, plans: list[Plan]) -> None:
        """Refuse plans that leave weights in float beside activations in integers.

        Raises:
            SettingError: there is one.
        """
        for plan in plans:
            entries = (plan.default, *plan.layers.values())
            if plan.quantizes_activations and any(
                e.weight_bits is None or e.activation_bits is None for e in entries
            ):
                raise SettingError(
                    "expected weight and activation bits for every layer with --execution "
                    "integer, found a plan that leaves some in float: leave out --skip-layers, or "
                    "give them bits"
                )


class IntegerTwin(nn.Module):
    """A quantized network in integers, and its simulation."""

    def __init__(self, quantized: QuantizedModel, accumulator: Accumulator | None) -> None:
        super().__init__()
        if quantized.activations is None:
            raise ModelError("expected activations in integers, found float ones")
        self.simulation = quantized
        self.executor = IntegerExecutor(integer_network(quantized, accumulator), quantized.network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the integer network."""
        return self.executor(x)
