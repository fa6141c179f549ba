"""Small float formats for weights, to compare integers with: float16, bfloat16, FP8 and MX.

==================  =======================================  =================================
name                a weight                                 its scale
==================  =======================================  =================================
``float16``         IEEE 754 binary16                        none
``bfloat16``        8 bits of exponent, 7 of fraction        none
``fp8-e4m3``        OCP FP8, largest 448                     float32, of the output channel
``fp8-e5m2``        OCP FP8, largest 57344                   float32, of the output channel
``mxfp8-e4m3``      the same, in blocks of 32                power of two in 8 bits, of a block
``mxfp8-e5m2``
``mxfp6-e2m3``      6 bits
``mxfp6-e3m2``
``mxfp4``           4 bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6
``mxint8``          8-bit integers / 64
==================  =======================================  =================================

FP8's scale takes the largest magnitude of the channel to the largest finite value. A block's scale
is 2^(floor(log2 of its largest magnitude) - emax), as in the specification, so that its largest
weights may saturate. Blocks run along the sum of one output, in the order kernel row, kernel
column, input channel; the last one of a channel may be shorter. Rounding is to nearest, ties to
even. Biases stay in float32.

Sources: OCP, "8-bit Floating Point Specification (OFP8)", 1.0, 2023; OCP, "Microscaling Formats
(MX) Specification", 1.0, 2023, section 6.3. Each value is rounded by gfloat (Graphcore).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import gfloat
import numpy as np
import torch
from gfloat import formats
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from quantisp.errors import ModelError, SettingError
from quantisp.hardware import mac_cost
from quantisp.quantization.cost import FLOAT_BITS, SCALE_BYTES, NetworkWork, PlanCost
from quantisp.quantization.layers import find_layers
from quantisp.quantization.plan import LayerPlan, Plan

__all__ = [
    "WEIGHT_FORMATS",
    "WeightFormat",
    "cast_network",
    "cast_weight",
    "find_format",
    "format_cost",
]

BLOCK = 32
BLOCK_SCALE_BITS = 8
BLOCK_EXPONENTS = (-127, 127)


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightFormat:
    """A float format, and what its values are scaled by.

    Args:
        element: of one weight, as gfloat describes it.
        scaled: by nothing, each output ``channel`` in float32, or each ``block`` by a power of two.
    """

    element: gfloat.FormatInfo
    scaled: Literal["none", "channel", "block"]

    @property
    def bits(self) -> int:
        """Of a weight, without scales."""
        return self.element.k


WEIGHT_FORMATS: Mapping[str, WeightFormat] = MappingProxyType(
    {
        "float16": WeightFormat(element=formats.format_info_binary16, scaled="none"),
        "bfloat16": WeightFormat(element=formats.format_info_bfloat16, scaled="none"),
        "fp8-e4m3": WeightFormat(element=formats.format_info_ocp_e4m3, scaled="channel"),
        "fp8-e5m2": WeightFormat(element=formats.format_info_ocp_e5m2, scaled="channel"),
        "mxfp8-e4m3": WeightFormat(element=formats.format_info_ocp_e4m3, scaled="block"),
        "mxfp8-e5m2": WeightFormat(element=formats.format_info_ocp_e5m2, scaled="block"),
        "mxfp6-e2m3": WeightFormat(element=formats.format_info_ocp_e2m3, scaled="block"),
        "mxfp6-e3m2": WeightFormat(element=formats.format_info_ocp_e3m2, scaled="block"),
        "mxfp4": WeightFormat(element=formats.format_info_ocp_e2m1, scaled="block"),
        "mxint8": WeightFormat(element=formats.format_info_ocp_int8, scaled="block"),
    }
)


def find_format(name: str) -> WeightFormat:
    """The format of that name.

    Raises:
        SettingError: there is none.
    """
    if name not in WEIGHT_FORMATS:
        raise SettingError(
            f"expected a weight format among {', '.join(WEIGHT_FORMATS)}, found {name!r}: "
            "choose one of them"
        )
    return WEIGHT_FORMATS[name]


def cast_network(model: nn.Module, name: str, skip_layers: Sequence[str] = ()) -> nn.Module:
    """A copy of a network whose weights are values of a format; biases and activations stay.

    Args:
        model: float32 weights.
        name: of the format.
        skip_layers: the names of layers that stay in float32.

    Raises:
        SettingError: no such format.
        PlanError: a layer whose weights no quantizer knows.
        ModelError: a weight is NaN or infinite, or not float32.
    """
    weight_format = find_format(name)
    network = copy.deepcopy(model)
    layers = find_layers(network)
    done: set[int] = set()
    for layer_name, entry in _planned(network, skip_layers).items():
        layer = layers[layer_name]
        if entry is None or id(layer.weight) in done:
            continue
        done.add(id(layer.weight))
        weight = layer.weight.detach().cpu()
        if weight.dtype != torch.float32 or not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"expected finite float32 weights, layer {layer_name!r} has others: "
                "load other weights, or convert the network with .float()"
            )
        with torch.no_grad():
            layer.weight.copy_(cast_weight(weight, weight_format, layer.axis("channel") or 0))
    return network


def cast_weight(
    weight: Float[Tensor, "*shape"], weight_format: WeightFormat, axis: int
) -> Float[Tensor, "*shape"]:
    """The nearest values of a format.

    Args:
        weight: finite.
        weight_format: the format.
        axis: of the output channels.
    """
    rows, shape = _rows(weight, axis)
    values = rows.double().numpy()
    if weight_format.scaled == "block":
        rounded = _by_block(values, weight_format.element)
    elif weight_format.scaled == "channel":
        largest = np.abs(values).max(axis=1, keepdims=True)
        scale = (largest / weight_format.element.max).astype(np.float32).astype(np.float64)
        scale = np.where(scale > 0.0, scale, 1.0)
        rounded = _rounded(values / scale, weight_format.element) * scale
    else:
        rounded = _rounded(values, weight_format.element)
    return torch.from_numpy(rounded).float().reshape(shape).movedim(-1, 1).movedim(0, axis)


def format_cost(
    model: nn.Module, name: str, work: NetworkWork, skip_layers: Sequence[str] = ()
) -> PlanCost:
    """What a network costs with its weights in a format and float32 activations.

    ``mean_bits`` counts the scales of blocks.
    """
    weight_format = find_format(name)
    bits_sum = bytes_sum = 0
    bops = 0.0
    for layer_name, entry in _planned(model, skip_layers).items():
        layer = work.layers[layer_name]
        element = FLOAT_BITS if entry is None else weight_format.bits
        bops += layer.macs_per_px * element * FLOAT_BITS
        if not layer.weights:
            continue
        bits, scale_bytes = layer.weights * element, 0
        if entry is not None and weight_format.scaled == "block":
            bits += BLOCK_SCALE_BITS * layer.channels * math.ceil(layer.products / BLOCK)
        elif entry is not None and weight_format.scaled == "channel":
            scale_bytes = SCALE_BYTES * layer.channels
        bits_sum += bits
        bytes_sum += math.ceil(bits / 8) + scale_bytes
    unit = mac_cost(None, None)
    return PlanCost(
        mean_bits=bits_sum / max(work.weights, 1),
        weight_bytes=bytes_sum,
        bops_per_px=bops,
        mac_energy_pj=unit.energy_pj,
        mac_area_um2=unit.area_um2,
    )


def _planned(model: nn.Module, skip_layers: Sequence[str]) -> dict[str, int | None]:
    """The layers, and whether they are cast: those that a uniform plan quantizes."""
    plan = Plan.uniform(weight_bits=8, granularity="channel")
    for name in skip_layers:
        plan = plan.with_layer(name, LayerPlan(weight_bits=None))
    return {name: entry.weight_bits for name, entry in plan.resolve(model).items()}


def _rows(weight: Tensor, axis: int) -> tuple[Tensor, torch.Size]:
    """One row for each output channel, input channels innermost; and the shape before."""
    ordered = weight.movedim(axis, 0).movedim(1, -1).contiguous()
    return ordered.flatten(1), ordered.shape


def _by_block(rows: NDArray[np.float64], element: gfloat.FormatInfo) -> NDArray[np.float64]:
    channels, length = rows.shape
    padded = np.zeros((channels, math.ceil(length / BLOCK) * BLOCK))
    padded[:, :length] = rows
    blocks = padded.reshape(channels, -1, BLOCK)
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    # frexp is exact: largest = fraction * 2^exponent with a fraction from 0.5 to 1.
    exponent = np.frexp(largest)[1] - 1 - element.emax
    exponent = np.where(largest > 0.0, exponent, BLOCK_EXPONENTS[0])
    scale = np.ldexp(1.0, np.clip(exponent, *BLOCK_EXPONENTS))
    rounded = _rounded(blocks / scale, element) * scale
    return rounded.reshape(channels, -1)[:, :length]


def _rounded(values: NDArray[np.float64], element: gfloat.FormatInfo) -> NDArray[np.float64]:
    return gfloat.round_ndarray(element, values, gfloat.RoundMode.TiesToEven, sat=True)
