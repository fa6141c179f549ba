"""Scales whose ratios are powers of two, so that shifts replace the multipliers.

The grids of the input and of the output are given: 1 / (2^bits - 1). What is added to such a
tensor, or joined with it, needs a scale that differs from it by a power of two. So each tensor
gets a ``unit``: its scale is that unit times a power of two. Sums, moves and changes of scale keep
units, a product has the product of its inputs', and layers and tables may give any, for weights and
entries absorb it. A layer's weights have the scale 2^k * unit of its output / unit of its input.

Weights are rounded anew, to nearest, on such scales; of the two next to the scale that a method
found, the one of less squared error is taken. So only methods that look at nothing but weights can
be combined with it: what others gained would be lost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quantisp.errors import PlanError, SettingError
from quantisp.quantization.activations.placement import Placement
from quantisp.quantization.activations.powers import SAME, nearest_powers
from quantisp.quantization.activations.tensors import TensorQuantizer
from quantisp.quantization.affine import QuantizedWeight, quantize_tensor
from quantisp.quantization.graph.nodes import Add, Multiply, Node, Requantize
from quantisp.quantization.layers import Layer, find_layers
from quantisp.quantization.methods import METHODS
from quantisp.quantization.plan import Plan

__all__ = ["power_of_two_weights", "tensor_units"]


def tensor_units(placement: Placement) -> dict[str, float]:
    """The unit of each group of tensors, by the group's name.

    Raises:
        SettingError: the grids of input and output, or a product and a sum, do not go together.
    """
    fixed: dict[str, float] = {
        name: 1.0 / TensorQuantizer(bits=group.bits, signed=False, scale=1.0).qmax
        for name, group in placement.groups.items()
        if group.unit and group.bits is not None
    }
    first = _joined(placement)
    units: dict[str, float] = {}
    for name, unit in fixed.items():
        units[first[name]] = _agreed(units.get(first[name]), unit, name)
    for node in placement.graph.nodes:
        if not isinstance(node.operation, Multiply):
            continue
        given = [units.setdefault(first[placement.group_of[name]], 1.0) for name in node.inputs]
        target = first[placement.group_of[node.name]]
        units[target] = _agreed(units.get(target), given[0] * given[1], node.where)
    return {name: units.get(first[name], 1.0) for name in placement.groups}


def power_of_two_weights(
    placement: Placement,
    reference: nn.Module,
    weights: Mapping[str, QuantizedWeight],
    plan: Plan,
) -> dict[str, QuantizedWeight]:
    """The weights on scales that are powers of two times their layer's unit.

    Args:
        placement: of the network.
        reference: the float network.
        weights: as methods left them.
        plan: widths and roundings.

    Raises:
        PlanError: a method that looks at more than weights.
        SettingError: units that do not go together.
    """
    units, layers = tensor_units(placement), find_layers(reference)
    wanted: dict[str, float] = {}
    for node in placement.graph.nodes:
        if node.layer is not None and node.layer in weights:
            unit = _unit(node, placement, units)
            owner = _owner(node.layer, layers)
            wanted[owner] = _agreed(wanted.get(owner), unit, node.where)
    found: dict[str, QuantizedWeight] = {}
    for name, weight in weights.items():
        entry = plan.for_layer(name)
        if entry.method not in METHODS:
            raise PlanError(
                f"expected a method that looks at weights alone ({', '.join(METHODS)}) with scales "
                f"of powers of two, found {entry.method!r} for layer {name!r}: choose one"
            )
        unit = wanted.get(_owner(name, layers), 1.0)
        found[name] = _rounded(layers[name].weight.detach().cpu(), weight, unit, plan, name)
    return found


def _owner(name: str, layers: Mapping[str, Layer]) -> str:
    """The first of the layers that share its weight."""
    own = layers[name].weight
    return next(other for other, layer in layers.items() if layer.weight is own)


def _rounded(
    values: Tensor, weight: QuantizedWeight, unit: float, plan: Plan, name: str
) -> QuantizedWeight:
    entry = plan.for_layer(name)
    int_format = entry.weight_format
    if int_format is None:
        return weight
    axis = weight.axis
    if weight.groups > 1:
        raise PlanError(
            f"expected one scale for layer {name!r}, a transposed convolution in groups, with "
            "power_of_two: plan it with granularity tensor"
        )
    best: QuantizedWeight | None = None
    least = torch.tensor(math.inf)
    for scale in nearest_powers(weight.scale, unit):
        scale32 = scale.to(weight.scale.dtype)
        codes = quantize_tensor(values, scale32, int_format, entry.rounding, axis)
        tried = QuantizedWeight(codes=codes, scale=scale32, axis=axis)
        squared = (tried.dequantize() - values).double().square()
        others = [d for d in range(values.ndim) if d != axis]
        error = squared.sum() if axis is None else squared.sum(dim=others)
        best = tried if best is None else _chosen(best, tried, error < least)
        least = torch.minimum(least, error)
    return weight if best is None else best


def _chosen(old: QuantizedWeight, new: QuantizedWeight, better: Tensor) -> QuantizedWeight:
    if old.axis is None:
        return new if bool(better) else old
    shape = [-1 if d == old.axis else 1 for d in range(old.codes.ndim)]
    return QuantizedWeight(
        codes=torch.where(better.reshape(shape), new.codes, old.codes),
        scale=torch.where(better, new.scale, old.scale),
        axis=old.axis,
    )


def _unit(node: Node, placement: Placement, units: Mapping[str, float]) -> float:
    given, made = (units[placement.group_of[name]] for name in (node.inputs[0], node.name))
    return made / given


def _joined(placement: Placement) -> dict[str, str]:
    """For each group the first of those whose units have to be the same."""
    first = {name: name for name in placement.groups}

    def find(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for node in placement.graph.nodes:
        if isinstance(node.operation, Add | Requantize):
            for name in node.inputs:
                first[find(placement.group_of[name])] = find(placement.group_of[node.name])
    return {name: find(name) for name in first}


def _agreed(known: float | None, found: float, where: str) -> float:
    """Two units that have to be the same, up to a power of two.

    Raises:
        SettingError: they are not.
    """
    if known is None:
        return found
    exponent = math.log2(known / found)
    if abs(exponent - round(exponent)) > SAME:
        raise SettingError(
            f"expected scales that differ by powers of two alone, those that meet at {where} "
            f"cannot ({known:.6g} and {found:.6g} are given): plan output_bits as input_bits, or "
            "leave power_of_two out"
        )
    return known
