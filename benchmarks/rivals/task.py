"""What each toolkit is given, and what it gives back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from quantisp.models import DePhaseNet

from .twin import Twin, folded_inputs

Weights = Mapping[str, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One row to fill.

    Args:
        network: the float network; no toolkit may change it.
        mosaics: the calibration batches, all of one size.
        weight_bits: of every layer.
        activation_bits: None leaves activations in float.
        iterations: of methods that learn a rounding, in their own unit; 0 for others.
        seed: for methods that draw.
    """

    network: DePhaseNet
    mosaics: Sequence[Tensor]
    weight_bits: int
    activation_bits: int | None
    iterations: int
    seed: int

    def twin(self) -> Twin:
        """A new one, for a toolkit to change."""
        return Twin(copy.deepcopy(self.network)).eval()

    def folded(self) -> list[tuple[Tensor, Tensor]]:
        """The calibration batches as the twin's inputs."""
        return [folded_inputs(x, self.network) for x in self.mosaics]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a toolkit made.

    Args:
        weights: weight and bias of each layer, dequantized, by the original's names.
        network: maps a mosaic to RGB with quantized activations; None where they are float, for
            then the weights are measured in the original network.
        settings: what was asked of the toolkit, in words.
        notes: what it did to the layers that a reader should know of.
        bits: of each layer, where they differ.
    """

    weights: Weights
    network: nn.Module | None
    settings: str
    notes: Mapping[str, str | float] = field(default_factory=dict[str, str | float])
    bits: Mapping[str, int] | None = None


def weight_and_bias(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Of a layer, copied."""
    parameters = dict(layer.named_parameters(recurse=False))
    bias = parameters.get("bias")
    return parameters["weight"].detach().clone(), None if bias is None else bias.detach().clone()
