"""ONNX files of integer networks: standard ones, and QONNX with the true widths.

What was written is read again and run, node by node on equal inputs, before it is kept.
"""

from __future__ import annotations

from quantisp.quantization.export.onnx.checking import (
    ModelCheck,
    NodeCheck,
    check_input,
    check_model,
)
from quantisp.quantization.export.onnx.running import run_onnxruntime
from quantisp.quantization.export.onnx.running_qonnx import run_qonnx
from quantisp.quantization.export.onnx.scales import tensor_scales
from quantisp.quantization.export.onnx.writer import build_onnx, build_qonnx
from quantisp.quantization.export.onnx.writing import write_onnx, write_qonnx

__all__ = [
    "ModelCheck",
    "NodeCheck",
    "build_onnx",
    "build_qonnx",
    "check_input",
    "check_model",
    "run_onnxruntime",
    "run_qonnx",
    "tensor_scales",
    "write_onnx",
    "write_qonnx",
]
