"""Activations in integers as named tensors, beside those of the weights; and back.

The graph itself is not there: it is captured again from the network, by an input of the shape that
is recorded, and the plan says where quantizers stand. What is kept is what calibration or training
found: scales and biases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from quantisp.errors import ModelError, QuantispError
from quantisp.quantization.activations.assembling import assemble
from quantisp.quantization.activations.placement import Group, place_quantizers
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.activations.tensors import TensorQuantizer
from quantisp.quantization.activations.weight_steps import WeightStep
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.graph.capture import capture
from quantisp.quantization.graph.nodes import Graph
from quantisp.quantization.plan import Plan

__all__ = ["is_of_activations", "pack_activations", "unpack_activations"]

SCALES, BIAS = "activations/scales", "bias/"
# The longest side, and the most channels and pictures, of an input to capture with.
LARGEST = 4096


def is_of_activations(name: str) -> bool:
    """Whether a tensor is one of those here."""
    return name == SCALES or name.startswith(BIAS)


def pack_activations(activations: SimulatedNetwork) -> tuple[dict[str, Tensor], str]:
    """Scales and biases, and the shape of an input as a text."""
    groups = _with_bits(activations.placement.groups)
    found = [q for name in groups if (q := activations.quantizers[name]) is not None]
    scales = torch.tensor([q.scale for q in found], dtype=torch.float64)
    biases = {
        f"{BIAS}{step.node.name}": step.real_bias
        for step in activations.steps
        if isinstance(step, WeightStep)
    }
    return {SCALES: scales, **biases}, json.dumps(list(activations.graph.example))


def unpack_activations(
    network: nn.Module,
    plan: Plan,
    weights: Mapping[str, QuantizedWeight],
    tensors: Mapping[str, Tensor],
    example: str | None,
) -> SimulatedNetwork | None:
    """What was packed; None where the plan has no bits for activations.

    Args:
        network: with the weights that the codes stand for.
        plan: of the network.
        weights: codes and scales.
        tensors, example: of :func:`pack_activations`, from a source that is not trusted.

    Raises:
        ModelError: they are damaged, or of another network.
    """
    given = {name for name in tensors if is_of_activations(name)}
    if not plan.quantizes_activations:
        if given:
            raise ModelError(f"expected activations in float, as planned, found {min(given)}")
        return None
    try:
        graph = capture(network, torch.zeros(_shape(example)))
        placement = place_quantizers(graph, plan)
        biases = _biases(network, graph, tensors)
        quantizers = _quantizers(placement.groups, tensors[SCALES])
        layers = {node.layer for node in graph.nodes if node.layer is not None}
        used = {
            name: weights.get(name, network.get_submodule(name).get_parameter("weight").detach())
            for name in layers
        }
        return assemble(placement, quantizers, used, biases, plan.activations)
    except ModelError:
        raise
    except QuantispError as error:
        raise ModelError(f"the activations do not fit the network: {error}") from error


def _with_bits(groups: Mapping[str, Group]) -> list[str]:
    return [name for name, group in groups.items() if group.bits is not None]


def _quantizers(groups: Mapping[str, Group], scales: Tensor) -> dict[str, TensorQuantizer | None]:
    names = _with_bits(groups)
    if scales.shape != (len(names),) or scales.dtype != torch.float64:
        raise ModelError(
            f"expected {len(names)} float64 scales of activations, found {scales.dtype} of "
            f"{tuple(scales.shape)}"
        )
    if not bool((torch.isfinite(scales) & (scales > 0)).all()):
        raise ModelError("expected finite scales of activations above 0, found others")
    found: dict[str, TensorQuantizer | None] = dict.fromkeys(groups)
    for name, scale in zip(names, scales.tolist(), strict=True):
        unit = TensorQuantizer(bits=groups[name].bits or 0, signed=groups[name].signed, scale=1.0)
        # The grids of input and output are given.
        found[name] = replace(unit, scale=1.0 / unit.qmax if groups[name].unit else scale)
    return found


def _biases(network: nn.Module, graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layers = {node.name: node.layer for node in graph.nodes if node.layer is not None}
    given = {name for name in tensors if is_of_activations(name)}
    expected = {f"{BIAS}{name}" for name in layers} | {SCALES}
    if given != expected:
        name = min(given ^ expected)
        found = "lacks" if name in expected else "has a further"
        raise ModelError(f"expected the tensors of this network and plan, the file {found} {name}")
    biases = {name: tensors[f"{BIAS}{name}"] for name in layers}
    for name, bias in biases.items():
        channels = _channels(network.get_submodule(layers[name]))
        if bias.shape not in ((1,), (channels,)) or not bool(torch.isfinite(bias).all()):
            raise ModelError(f"expected {channels} finite values in {BIAS}{name}, found others")
    return biases


def _channels(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else 0


def _shape(example: str | None) -> tuple[int, int, int, int]:
    try:
        n, c, h, w = json.loads(example or "")
        if all(type(size) is int and 0 < size <= LARGEST for size in (n, c, h, w)):
            return min(n, 2), c, h, w
    except (TypeError, ValueError):
        pass
    raise ModelError(f"expected the shape of an input beside activations, found {example!r}")
