"""The quantized network: the float network with weights that are codes times scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import PlanError, RunError
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.affine import QuantizedWeight, dequantize_tensor
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.graph import run_padded
from quantisp.quantization.layers import (
    BUFFER_IN_FLOAT,
    BUFFER_KIND,
    Layer,
    find_layers,
    small_modules,
    weight_buffers,
)
from quantisp.quantization.plan import Plan

__all__ = ["LayerCoverage", "QuantizedModel", "codes_dtype", "verify_codes"]


@dataclass(frozen=True, kw_only=True)
class LayerCoverage:
    """What became of one module that owns parameters, or of a buffer that may be a weight.

    Args:
        kind: its class, such as ``Conv2d``; ``buffer`` for a buffer.
        weights: how many it has.
        weight_bits: None is float.
        reason: why it is float; empty where it is quantized.
    """

    kind: str
    weights: int
    weight_bits: int | None
    reason: str


class QuantizedModel(nn.Module):
    """A network whose planned weights are exactly ``codes * scale``.

    Made by :func:`quantisp.quantize`. The tensors of ``codes`` and ``scales`` stay on the CPU, and
    the weights made from them are frozen, so that no training step can part the two. A layer in
    float is in ``coverage`` alone, and the state dict is that of ``network``.

    Attributes:
        network: the float network with the dequantized float32 weights.
        plan: what was asked for.
        decisions: what ``auto`` tried and kept; empty for other methods.
        codes: of each quantized layer, in its weight's shape: int8 to 8 bits, else int16.
        scales: of each quantized layer, float32: 0-d, or 1-d over the output channels.
        formats: of each quantized layer.
        coverage: of each module that owns parameters, and of each floating-point buffer of two or
            more dimensions that is no mask.
        activations: the network in integers, simulated in float, with its graph, the quantizer of
            each tensor, multipliers, shifts and tables; None where activations are float.
        pattern: the CFA of the network, or None where it names none.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        plan: Plan,
        weights: Mapping[str, QuantizedWeight],
        decisions: Sequence[str] = (),
        activations: SimulatedNetwork | None = None,
    ) -> None:
        super().__init__()
        self.training = network.training
        self.network = network
        self.plan = plan
        self.decisions = tuple(decisions)
        self.formats: dict[str, IntFormat] = {
            name: int_format
            for name in weights
            if (int_format := plan.for_layer(name).weight_format) is not None
        }
        self.codes: dict[str, Tensor] = {
            name: weight.codes.to(codes_dtype(self.formats[name]))
            for name, weight in weights.items()
        }
        self.scales: dict[str, Tensor] = {name: weight.scale for name, weight in weights.items()}
        self.coverage: dict[str, LayerCoverage] = (
            {
                name: LayerCoverage(
                    kind=layer.kind,
                    weights=layer.numel,
                    weight_bits=self.formats[name].bits if name in weights else None,
                    reason="" if name in weights else _why_float(layer),
                )
                for name, layer in find_layers(network).items()
            }
            | {
                name: LayerCoverage(
                    kind=type(module).__name__,
                    weights=sum(value.numel() for value in module.parameters(recurse=False)),
                    weight_bits=None,
                    reason="its parameters have one dimension",
                )
                for name, module in small_modules(network).items()
            }
            | {
                name: LayerCoverage(
                    kind=BUFFER_KIND,
                    weights=buffer.numel(),
                    weight_bits=None,
                    reason=BUFFER_IN_FLOAT,
                )
                for name, buffer in weight_buffers(network).items()
            }
        )
        self.activations = activations
        self.pattern: Any = getattr(network, "pattern", None)

    def forward(self, mosaic: Float[Tensor, "*input"]) -> Float[Tensor, "*output"]:
        """The network's output; activations are float, or as the plan says."""
        if self.activations is None:
            return self.network(mosaic)
        return run_padded(self.network, self.activations, mosaic)

    def weights(self) -> dict[str, QuantizedWeight]:
        """Codes and scale of each quantized layer, together."""
        layers = find_layers(self.network)
        return {
            name: QuantizedWeight(
                codes=codes.to(torch.int32),
                scale=self.scales[name],
                axis=layers[name].output_axis if self.scales[name].ndim else None,
                groups=layers[name].scale_groups if self.scales[name].ndim else 1,
            )
            for name, codes in self.codes.items()
        }


def codes_dtype(int_format: IntFormat) -> torch.dtype:
    """How codes are kept: int8 to 8 bits, else int16."""
    return torch.int8 if int_format.bits <= 8 else torch.int16


def _why_float(layer: Layer) -> str:
    known = layer.output_axis is not None
    return "float by the plan" if known else f"float by the plan; no quantizer knows {layer.kind}"


def verify_codes(quantized: QuantizedModel) -> None:
    """Hold the result against the plan, from its parameters up: a gap is an error."""
    plan, network = quantized.plan, quantized.network
    for path, parameter in network.named_parameters():
        name = path.rpartition(".")[0]
        bits = plan.for_layer(name).weight_bits
        if parameter.ndim >= 2 and bits is not None and name not in quantized.codes:
            raise PlanError(
                f"expected layer {name!r} in {bits} bits, its {path!r} is still float: "
                "plan that layer with weight_bits None"
            )
    layers = find_layers(network)
    for name, codes in quantized.codes.items():
        int_format, scale = quantized.formats[name], quantized.scales[name]
        axis = layers[name].output_axis if scale.ndim else None
        groups = layers[name].scale_groups
        weight = layers[name].weight.detach().cpu()
        in_format = int_format.qmin <= int(codes.min()) and int(codes.max()) <= int_format.qmax
        if not in_format or not torch.equal(dequantize_tensor(codes, scale, axis, groups), weight):
            raise RunError(
                f"expected {int_format.bits}-bit codes times scales as the weight of layer "
                f"{name!r}, found others: method {plan.for_layer(name).method!r} is at fault, "
                "choose another"
            )
