"""Weights and activations to integers: formats, rounding, plans, methods, the quantized network.

Works on any ``nn.Module`` and knows nothing of cameras or data.
"""

from __future__ import annotations

from quantisp.quantization.activations.settings import OBSERVERS, ActivationSettings, Observer
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.activations.tensors import TensorQuantizer, round_input
from quantisp.quantization.affine import (
    QuantizedWeight,
    dequantize_tensor,
    quantize_tensor,
    weight_scale,
)
from quantisp.quantization.allocation import Budget, allocate, check_budget
from quantisp.quantization.batch_norm import (
    BATCH_NORMS,
    FoldedNetwork,
    fold_batch_norms,
    without_batch_norms,
)
from quantisp.quantization.checkpoints import Checkpoints
from quantisp.quantization.cost import NetworkWork, PlanCost, count_macs, network_work, plan_cost
from quantisp.quantization.float_formats import (
    WEIGHT_FORMATS,
    cast_network,
    find_format,
    format_cost,
)
from quantisp.quantization.formats import MAX_BITS, MIN_BITS, IntFormat
from quantisp.quantization.graph import Graph, PadsInside, capture, run_float
from quantisp.quantization.incremental_guide import IncrementalGuide
from quantisp.quantization.layers import (
    BUFFER_IN_FLOAT,
    BUFFER_KIND,
    Layer,
    find_layers,
    names_like,
    weight_buffers,
)
from quantisp.quantization.methods import (
    CALIBRATED,
    METHODS,
    NETWORK,
    CalibratedMethod,
    LayerMethod,
    method_names,
    needs_calibration,
)
from quantisp.quantization.model import LayerCoverage, QuantizedModel
from quantisp.quantization.network import NetworkMethod, NetworkTask, RoundedNetwork
from quantisp.quantization.packing import pack_quantized, unpack_quantized
from quantisp.quantization.plan import LayerPlan, Plan
from quantisp.quantization.quantizing import (
    capture_for,
    network_method,
    quantize,
    quantize_activations,
)
from quantisp.quantization.rounding import Rounding, round_scalar, round_tensor
from quantisp.quantization.sensitivity import (
    SENSITIVITY_BITS,
    STAND_IN,
    Sensitivity,
    measure_sensitivity,
    shared_layers,
)
from quantisp.quantization.statistics import LayerStatistics
from quantisp.quantization.trainable import FINE_TUNING, TrainableModel

__all__ = [
    "BATCH_NORMS",
    "BUFFER_IN_FLOAT",
    "BUFFER_KIND",
    "CALIBRATED",
    "FINE_TUNING",
    "MAX_BITS",
    "METHODS",
    "MIN_BITS",
    "NETWORK",
    "OBSERVERS",
    "SENSITIVITY_BITS",
    "STAND_IN",
    "WEIGHT_FORMATS",
    "ActivationSettings",
    "Budget",
    "CalibratedMethod",
    "Checkpoints",
    "FoldedNetwork",
    "Graph",
    "IncrementalGuide",
    "IntFormat",
    "Layer",
    "LayerCoverage",
    "LayerMethod",
    "LayerPlan",
    "LayerStatistics",
    "NetworkMethod",
    "NetworkTask",
    "NetworkWork",
    "Observer",
    "PadsInside",
    "Plan",
    "PlanCost",
    "QuantizedModel",
    "QuantizedWeight",
    "RoundedNetwork",
    "Rounding",
    "Sensitivity",
    "SimulatedNetwork",
    "TensorQuantizer",
    "TrainableModel",
    "allocate",
    "capture",
    "capture_for",
    "cast_network",
    "check_budget",
    "count_macs",
    "dequantize_tensor",
    "find_format",
    "find_layers",
    "fold_batch_norms",
    "format_cost",
    "measure_sensitivity",
    "method_names",
    "names_like",
    "needs_calibration",
    "network_method",
    "network_work",
    "pack_quantized",
    "plan_cost",
    "quantize",
    "quantize_activations",
    "quantize_tensor",
    "round_input",
    "round_scalar",
    "round_tensor",
    "run_float",
    "shared_layers",
    "unpack_quantized",
    "weight_buffers",
    "weight_scale",
    "without_batch_norms",
]
