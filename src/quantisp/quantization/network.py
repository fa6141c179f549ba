"""Rounding a network as a whole: what such a method is given, and what it gives back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.checkpoints import Checkpoints
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import find_layers

__all__ = [
    "NetworkMethod",
    "NetworkTask",
    "Report",
    "RoundedNetwork",
    "output_error",
    "squared_errors",
]

# Errors far below what 8 bits show count for nothing.
LEAST_ERROR = 1e-9
# A report of a part is in thousandths of the whole.
REPORTED = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundedNetwork:
    """A network with dequantized weights.

    Args:
        network: a copy of the float network with those weights, and with its own biases.
        weights: of each quantized layer; layers that share a weight share the entry.
        decisions: what the method found worth doing, for people.
    """

    network: nn.Module
    weights: Mapping[str, QuantizedWeight]
    decisions: tuple[str, ...] = ()

    def with_weights(
        self, weights: Mapping[str, QuantizedWeight], biases: Mapping[str, Tensor]
    ) -> RoundedNetwork:
        """The same network with other weights and biases of some layers, by the layers' names.

        Layers that share a weight with one of them get the same.
        """
        network = copy.deepcopy(self.network)
        layers = find_layers(network)
        owners = {id(layers[name].weight): weight for name, weight in weights.items()}
        new = {n: owners.get(id(layers[n].weight), old) for n, old in self.weights.items()}
        with torch.no_grad():
            for name, weight in weights.items():
                layers[name].weight.copy_(weight.dequantize())
            for name, bias in biases.items():
                network.get_submodule(name).get_parameter("bias").copy_(bias)
        return replace(self, network=network, weights=new)


Report = Callable[[int, int], None]
ErrorsAlone = Callable[[nn.Module, Sequence[str], Report], Mapping[str, float]]


@runtime_checkable
class RoundBy(Protocol):
    """Rounding by a method of single layers."""

    def __call__(
        self,
        network: nn.Module,
        method: str,
        inputs: Sequence[Tensor],
        report: Report,
        layers: Sequence[str] | None = None,
        curvatures: Mapping[str, Tensor] | None = None,
        *,
        apart: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> RoundedNetwork:
        """Round ``layers`` and leave every other weight as it is; None is every planned layer.

        ``curvatures`` are known from before, of this network or one that is nearly the same; with
        None, a method that looks at them has them measured. Layers that are rounded ``apart`` are
        not told of each other's rounding, which takes a fraction of the time. ``checkpoints`` keep
        layers that took long.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkTask:
    """What a method that rounds a whole network is given.

    Args:
        model: the float network in evaluation mode; not to be changed.
        formats: of each layer that the method is to round; it leaves the others as they are.
        inputs: network inputs to calibrate with.
        round_by: rounds a network that has the same layers, such as ``model``, by a method of
            layers, with some of the inputs, and reports as it goes.
        errors_alone: the mean squared error of such a network's output for each of some layers,
            were that one alone rounded.
        report: called with the number of steps done, and of all.
        seed: of whatever the method draws at random.
        checkpoints: keep parts that took long, for the same task after a kill.
    """

    model: nn.Module
    formats: Mapping[str, IntFormat]
    inputs: Sequence[Float[Tensor, "*_"]]
    round_by: RoundBy
    errors_alone: ErrorsAlone
    report: Report
    seed: int = 0
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def owners(self) -> list[str]:
        """The layers to round, but one alone of those that share a weight."""
        layers = find_layers(self.model)
        first: dict[int, str] = {}
        for name in self.formats:
            first.setdefault(id(layers[name].weight), name)
        return list(first.values())

    def part(self, begin: float, end: float) -> NetworkTask:
        """The same task, whose report is that of a part, between two shares of the whole."""

        def report(done: int, total: int) -> None:
            share = begin + (end - begin) * done / total
            self.report(round(share * REPORTED), REPORTED)

        return replace(self, report=report)


@runtime_checkable
class NetworkMethod(Protocol):
    """A method that treats the layers of a network together."""

    def __call__(self, task: NetworkTask) -> RoundedNetwork:
        """Round the layers of ``task.formats``, and leave every other layer's weight as it is."""
        ...


def squared_errors(given: Tensor, wanted: Tensor) -> Float[Tensor, " n"]:
    """The mean squared difference of each of n outputs, and what is far too small to be seen.

    Args:
        given, wanted: (n, …), of the same shape.
    """
    return (given - wanted).square().flatten(1).mean(dim=1) + LEAST_ERROR


def output_error(
    network: nn.Module, reference: nn.Module, inputs: Sequence[Float[Tensor, "*_"]]
) -> float:
    """The mean squared difference of two networks' outputs, in evaluation mode."""
    network = copy.deepcopy(network).eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        errors = [
            (network(x.to(device)) - reference(x.to(device))).double().square().mean()
            for x in inputs
        ]
    return float(torch.stack(errors).mean())
