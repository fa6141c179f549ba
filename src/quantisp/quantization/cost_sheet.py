"""The cost of each layer and tensor of a network on frames of one size, from its graph.

What a plan costs whatever the size is in :mod:`quantisp.quantization.cost`; here the graph says
which widths a layer really multiplies (its input's, not its own), how large every tensor is, and
how many rows of it wait. ``docs/costs.md`` defines each figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.hardware import mac_cost
from quantisp.quantization.activations.placement import place_quantizers
from quantisp.quantization.cost import FLOAT_BITS, LayerWork
from quantisp.quantization.graph.execution import apply_move, apply_weight
from quantisp.quantization.graph.extents import Axis, stride_px
from quantisp.quantization.graph.nodes import ConvTranspose, Graph, Node
from quantisp.quantization.integer.network import IntegerNetwork, Weights
from quantisp.quantization.line_buffers import line_buffers
from quantisp.quantization.plan import LayerPlan, Plan
from quantisp.records.costs import CostSheet, TensorCost

__all__ = ["integer_sheet", "network_sheet"]

Size = tuple[int, int]
LARGEST_PX = 1 << 16


def network_sheet(graph: Graph, model: nn.Module, plan: Plan, size: Size) -> CostSheet:
    """The costs of a network under a plan; its weights and ranges do not matter.

    Args:
        graph: of the network.
        model: the network.
        plan: widths of weights and activations; None is float32.
        size: height and width of the input in px; rounded up to whole folds.

    Raises:
        SettingError: no such size.
        PlanError, ModelError: the plan does not fit, or the network needs the whole picture.
    """
    plan.resolve(model)
    placement = place_quantizers(graph, plan)
    groups, group_of = placement.groups, placement.group_of
    whole = plan.quantizes_activations
    graph = placement.graph if whole else graph
    widths = {
        node.name: groups[group_of[node.name]].bits if whole else None for node in graph.nodes
    }
    layers = {node.layer for node in graph.nodes if node.layer is not None}
    shapes = {
        name: tuple(model.get_submodule(name).get_parameter("weight").shape) for name in layers
    }
    plans = {name: plan.for_layer(name) for name in layers}
    return _Sheet(graph, shapes, widths, plans).of(size)


def integer_sheet(network: IntegerNetwork, size: Size) -> CostSheet:
    """The costs of a network in integers.

    Args:
        network: with the widths of every tensor.
        size: height and width of the input in px; rounded up to whole folds.

    Raises:
        SettingError, ModelError: as of :func:`network_sheet`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    plans: dict[str, LayerPlan] = {}
    for node, own, weights, _ in network.layers():
        shapes[node.layer or ""] = tuple(weights.codes.shape)
        scales = 0 if own.rescale is None else own.rescale.shift.numel()
        plans[node.layer or ""] = _as_plan(weights, scales)
    widths: dict[str, int | None] = {node.name: own.codes.bits for node, own in network}
    return _Sheet(network.graph, shapes, widths, plans).of(size)


def _as_plan(weights: Weights, scales: int) -> LayerPlan:
    return LayerPlan(weight_bits=weights.bits, granularity="channel" if scales > 1 else "tensor")


@dataclass(frozen=True, eq=False)
class _Sheet:
    graph: Graph
    shapes: Mapping[str, tuple[int, ...]]
    widths: Mapping[str, int | None]
    plans: Mapping[str, LayerPlan]

    def of(self, size: Size) -> CostSheet:
        height, width = self._whole(size)
        found = self._run(height, width)
        stored = [node for node in self.graph.nodes if not node.moves]
        places = Axis(graph=self.graph, kernels=self.shapes).places()
        row_bytes = {
            node.name: self._bytes(node.name, found[node.name].numel())
            / found[node.name].shape[places[node.name]]
            for node in stored
        }
        buffers = line_buffers(self.graph, self.shapes, row_bytes)
        readers = self._readers()
        seen: set[str] = set()
        costs: list[TensorCost] = []
        for node in stored:
            own = self._layer(node, found, owned=node.layer not in seen)
            seen |= {node.layer} if node.layer is not None else set()
            rows = buffers.rows[node.name]
            costs.append(
                TensorCost(
                    name=node.name,
                    layer=node.layer,
                    kind=type(node.operation).__name__,
                    output_bits=self.widths[node.name],
                    channels=found[node.name].shape[_channel_place(places[node.name])],
                    rows=rows,
                    buffer_bytes=math.ceil(rows * row_bytes[node.name]),
                    map_bytes=math.ceil(self._bytes(node.name, found[node.name].numel())),
                    readers=readers[node.name],
                    **own,
                )
            )
        output = found[self.graph.output]
        return CostSheet(
            height=height,
            width=width,
            output_px=output.shape[-2] * output.shape[-1],
            latency_rows=buffers.latency_rows,
            tensors=tuple(costs),
            outputs=tuple(sorted(self._behind(self.graph.output))),
        )

    def _whole(self, size: Size) -> Size:
        if not all(1 <= px <= LARGEST_PX for px in size):
            raise SettingError(
                f"expected a height and a width from 1 to {LARGEST_PX} px, found "
                f"{size[0]} and {size[1]}: correct --height and --width"
            )
        stride = stride_px(self.graph, self.shapes)
        height, width = (-(-px // stride) * stride for px in size)
        return height, width

    def _bytes(self, name: str, values: int) -> float:
        return values * (self.widths[name] or FLOAT_BITS) / 8

    def _run(self, height: int, width: int) -> dict[str, Tensor]:
        """Every tensor's shape, by running the graph on shapes alone."""
        if self.graph.example:
            return self._shaped(self.graph.example[1], height, width)
        # A file does not say it: a mosaic, or a picture.
        try:
            return self._shaped(1, height, width)
        except RuntimeError:
            return self._shaped(3, height, width)

    def _shaped(self, channels: int, height: int, width: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            inputs = [found[name] for name in node.inputs]
            if not inputs:
                found[node.name] = torch.empty(1, channels, height, width, device="meta")
            elif node.layer is not None:
                weight = torch.empty(self.shapes[node.layer], device="meta")
                found[node.name] = apply_weight(node.operation, inputs[0], weight, None)
            elif node.moves:
                found[node.name] = apply_move(node.operation, inputs, (height, width))
            else:
                shape = torch.broadcast_shapes(*(x.shape for x in inputs))
                found[node.name] = torch.empty(shape, device="meta")
        return found

    def _layer(self, node: Node, found: Mapping[str, Tensor], *, owned: bool) -> dict[str, Any]:
        given = self.widths[node.inputs[0]] if node.inputs else None
        if node.layer is None:
            return {
                "macs": 0,
                "bops": 0,
                "weight_bits": None,
                "input_bits": given,
                "weight_bytes": 0,
                "mac_energy_pj": 0.0,
                "mac_area_um2": 0.0,
            }
        shape, plan = self.shapes[node.layer], self.plans[node.layer]
        weights, operation = math.prod(shape), node.operation
        if isinstance(operation, ConvTranspose):
            channels = shape[1] * operation.groups
            products = weights // channels
            # Each input value meets the whole kernel.
            macs = found[node.inputs[0]].numel() * weights // shape[0]
        else:
            channels = shape[0]
            products = weights // channels
            macs = found[node.name].numel() * products
        work = LayerWork(
            weights=weights if owned else 0, channels=channels, products=products, macs_per_px=0.0
        )
        unit = mac_cost(plan.weight_bits, given, products)
        return {
            "macs": macs,
            "bops": macs * (plan.weight_bits or FLOAT_BITS) * (given or FLOAT_BITS),
            "weight_bits": plan.weight_bits,
            "input_bits": given,
            "weight_bytes": work.weight_bytes(plan),
            "mac_energy_pj": unit.energy_pj,
            "mac_area_um2": unit.area_um2,
        }

    def _readers(self) -> dict[str, int]:
        found = dict.fromkeys((node.name for node in self.graph.nodes), 0)
        for node in self.graph.nodes:
            behind = set[str]()
            for name in node.inputs if not node.moves else ():
                behind |= self._behind(name)
            for name in behind:
                found[name] += 1
        return found

    def _behind(self, name: str) -> set[str]:
        """The stored tensors that a tensor is read from."""
        node = self.graph.node(name)
        if not node.moves:
            return {name}
        return set[str]().union(*(self._behind(source) for source in node.inputs))


def _channel_place(rows: int) -> int:
    """Of the channels, by where the rows are: before them, or last."""
    return 1 if rows == 2 else 3
