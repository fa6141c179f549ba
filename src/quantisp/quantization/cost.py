"""What a plan costs in hardware: size, bit operations, and an estimate of energy and area.

* Size: the codes, packed without gaps and each layer filled up to a whole byte, and a float32 scale
  for each tensor or output channel. Weights in float count 32 bits. Biases, which no plan changes,
  are left out.
* Bit operations (BOPs), after Baskin et al., "UNIQ: Uniform noise injection for non-uniform
  quantization of neural networks", arXiv 1804.10969: weight bits times activation bits for each
  multiply-accumulate (MAC) of a layer. Float counts as 32 bits.
* Energy and area: :mod:`quantisp.hardware`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.hardware import mac_cost
from quantisp.quantization.layers import find_layers
from quantisp.quantization.plan import LayerPlan
from quantisp.quantization.watching import beside

__all__ = [
    "FLOAT_BITS",
    "LayerWork",
    "NetworkWork",
    "PlanCost",
    "count_macs",
    "network_work",
    "plan_cost",
]

FLOAT_BITS = 32
SCALE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """What does not depend on the plan.

    Args:
        weights: how many a layer has; 0 where an earlier layer owns them.
        channels: its output channels, each of which may have a scale.
        products: in the sum that one output is.
        macs_per_px: multiply-accumulates for each output pixel of the network.
    """

    weights: int
    channels: int
    products: int
    macs_per_px: float

    def weight_bytes(self, plan: LayerPlan) -> int:
        """Packed codes and, unless it is float, their scales."""
        if not self.weights or plan.weight_bits is None:
            return FLOAT_BITS // 8 * self.weights
        scales = 1 if plan.granularity == "tensor" else self.channels
        return math.ceil(self.weights * plan.weight_bits / 8) + SCALE_BYTES * scales

    def bops_per_px(self, plan: LayerPlan) -> float:
        """For each output pixel of the network."""
        weight_bits = plan.weight_bits or FLOAT_BITS
        return self.macs_per_px * weight_bits * (plan.activation_bits or FLOAT_BITS)


@dataclass(frozen=True, kw_only=True)
class NetworkWork:
    """The work of every layer that owns weights, by name, in the network's order."""

    layers: Mapping[str, LayerWork]

    @property
    def weights(self) -> int:
        """Of all layers."""
        return sum(layer.weights for layer in self.layers.values())

    @property
    def macs_per_px(self) -> float:
        """Of all layers."""
        return sum((work.macs_per_px for work in self.layers.values()), 0.0)


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """What a network costs under a plan.

    Args:
        mean_bits: of a weight, without scales for tensors and channels.
        weight_bytes: of codes and all scales.
        bops_per_px: bit operations for each output pixel.
        mac_energy_pj: the mean over the multiply-accumulates.
        mac_area_um2: of one unit that is wide enough for every layer.
    """

    mean_bits: float
    weight_bytes: int
    bops_per_px: float
    mac_energy_pj: float
    mac_area_um2: float


@torch.inference_mode()
def count_macs(model: nn.Module, example: Float[Tensor, "*input"]) -> dict[str, float]:
    """The multiply-accumulates of each convolution and linear layer, for one output pixel.

    Products of two feature maps, as in attention, belong to no layer and are not counted.

    Args:
        model: the network; it is not changed.
        example: an input of the shape that it takes; small, and of a size without padding.

    Returns:
        By name; a layer that is not used is missing.
    """
    # Not on shapes alone: some operations then make PyTorch load its compiler.
    probe = copy.deepcopy(model).eval()
    counts: dict[str, int] = {}

    def note(name: str, layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
        weight = layer.get_parameter("weight")
        if isinstance(layer, nn.ConvTranspose2d):
            # Each input value meets the whole kernel.
            products = taken[0].numel() * weight.numel() // weight.shape[0]
        else:
            products = given.numel() * weight.numel() // weight.shape[0]
        counts[name] = counts.get(name, 0) + products

    for name, layer in find_layers(probe).items():
        if layer.output_axis is not None:
            layer.module.register_forward_hook(partial(note, name))
    output = probe(beside(probe, example))
    px = output.shape[0] * output.shape[-2] * output.shape[-1]
    return {name: count / px for name, count in counts.items()}


def network_work(model: nn.Module, macs_per_px: Mapping[str, float]) -> NetworkWork:
    """What a network has to do, whatever its plan.

    Args:
        model: the network.
        macs_per_px: by layer, for one output pixel; a layer that is missing has none.
    """
    seen: set[int] = set()
    found: dict[str, LayerWork] = {}
    for name, layer in find_layers(model).items():
        own = [layer.module.get_parameter(weight) for weight in layer.weights]
        weights = sum(weight.numel() for weight in own if id(weight) not in seen)
        seen.update(map(id, own))
        channels = own[0].shape[layer.output_axis or 0]
        if isinstance(layer.module, nn.ConvTranspose2d):
            channels *= layer.module.groups
        found[name] = LayerWork(
            weights=weights,
            channels=channels,
            products=max(layer.numel // channels, 1),
            macs_per_px=macs_per_px.get(name, 0.0),
        )
    return NetworkWork(layers=found)


def plan_cost(work: NetworkWork, resolved: Mapping[str, LayerPlan]) -> PlanCost:
    """The cost of a plan.

    Args:
        work: of the network.
        resolved: what becomes of each of its layers, as :meth:`Plan.resolve` says.
    """
    pairs = [(layer, resolved[name]) for name, layer in work.layers.items()]
    units = [
        (layer.macs_per_px, mac_cost(plan.weight_bits, plan.activation_bits, layer.products))
        for layer, plan in pairs
        if layer.macs_per_px
    ]
    units = units or [(1.0, mac_cost(None, None))]
    macs = sum(share for share, _ in units)
    bits = sum(layer.weights * (plan.weight_bits or FLOAT_BITS) for layer, plan in pairs)
    return PlanCost(
        mean_bits=bits / max(work.weights, 1),
        weight_bytes=sum(layer.weight_bytes(plan) for layer, plan in pairs),
        bops_per_px=sum((layer.bops_per_px(plan) for layer, plan in pairs), 0.0),
        mac_energy_pj=sum(share * unit.energy_pj for share, unit in units) / macs,
        mac_area_um2=max(unit.area_um2 for _, unit in units),
    )
