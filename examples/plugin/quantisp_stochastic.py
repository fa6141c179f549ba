"""A rounding method from outside of quantisp: up or down by chance, right in the mean.

Source: Gupta, Agrawal, Gopalakrishnan, Narayanan, "Deep learning with limited numerical precision",
ICML 2015. Install it, and quantisp offers it wherever it offers its own::

    pip install examples/plugin
    quantisp study --method rtn,stochastic --weight-bits 6-8
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantisp.quantization import (
    IntFormat,
    QuantizedWeight,
    Rounding,
    dequantize_tensor,
    quantize_tensor,
    weight_scale,
)

__all__ = ["round_stochastically"]


def round_stochastically(
    weight: Tensor, int_format: IntFormat, rounding: Rounding, axis: int | None
) -> QuantizedWeight:
    """Quantize one weight; the same weight gives the same codes every time."""
    scale = weight_scale(weight, int_format, axis)
    one_step = dequantize_tensor(torch.ones_like(weight, dtype=torch.int32), scale, axis)
    noise = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    codes = quantize_tensor(weight + noise * one_step, scale, int_format, rounding, axis)
    return QuantizedWeight(codes=codes, scale=scale, axis=axis)
