"""One layer, rounded by its plan: by its weight alone, or with what its inputs are like."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quantisp.errors import ModelError, PlanError
from quantisp.quantization.affine import QuantizedWeight, weight_scale
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import Layer, naming_layer
from quantisp.quantization.matrices import as_matrix, from_matrix
from quantisp.quantization.methods import CALIBRATED, METHODS
from quantisp.quantization.plan import LayerPlan
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["round_layer"]


def round_layer(
    layer: Layer, plan: LayerPlan, statistics: Callable[[], LayerStatistics]
) -> tuple[QuantizedWeight, Tensor | None]:
    """Codes and scales of a layer's weight, and its new bias where the method corrects it.

    Args:
        layer: it is not changed.
        plan: by a method of single layers.
        statistics: of the layer's inputs; called if the method looks at them.

    Raises:
        PlanError: the plan leaves the layer in float.
        ModelError: a weight is not float32 or not finite.
        RunError: a method fails.
    """
    int_format = plan.weight_format
    if int_format is None:
        raise PlanError(f"expected bits for layer {layer.name!r}, found float: give it some")
    weight = layer.weight.detach().cpu()
    if weight.dtype != torch.float32:
        raise ModelError(
            f"expected float32 weights, layer {layer.name!r} has {weight.dtype}: "
            "convert the network with .float()"
        )
    axis = layer.axis(plan.granularity)
    if plan.method in METHODS:
        with naming_layer(layer.name):
            return _by_weight(layer, weight, int_format, plan, axis), None
    with naming_layer(layer.name):
        # Refuses weights that are not finite.
        weight_scale(weight, int_format)
    found = statistics()
    method = CALIBRATED[plan.method]
    with naming_layer(layer.name):
        return method(layer.module, weight, int_format, plan.rounding, axis, found)


def _by_weight(
    layer: Layer, weight: Tensor, int_format: IntFormat, plan: LayerPlan, axis: int | None
) -> QuantizedWeight:
    method, groups = METHODS[plan.method], layer.scale_groups
    if axis is None or groups == 1:
        return method(weight, int_format, plan.rounding, axis)
    # Such a method knows one axis of channels: it gets them as rows, whatever their groups.
    rows = as_matrix(layer.module, weight).flatten(0, 1)
    found = method(rows, int_format, plan.rounding, 0)
    codes = from_matrix(layer.module, found.codes.reshape(groups, -1, rows.shape[1]), weight)
    return QuantizedWeight(codes=codes, scale=found.scale, axis=axis, groups=groups)
