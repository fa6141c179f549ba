"""The plain form of fine-tuning: the scale follows the weight, and gradients pass straight through.

In every forward pass the weight is rounded to nearest, with the absolute maximum of each tensor or
channel at the last code; the gradient of the rounded weight is that of the weight.

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018, section 3; symmetric, with zero_point 0, as all
weights here.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.affine import QuantizedWeight, quantize_tensor, weight_scale
from quantisp.quantization.weight_quantizer import WeightQuantizer

__all__ = ["AbsoluteMaximum"]


class AbsoluteMaximum(WeightQuantizer):
    """A weight's quantizer whose scale is the absolute maximum over qmax; nothing is learned."""

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes times scale; the gradient comes back unchanged."""
        return _StraightThrough.apply(weight, self._rounded(weight.detach()).dequantize())  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def quantized(self, weight: Float[Tensor, "*shape"]) -> QuantizedWeight:
        """The codes and the scale behind ``forward``."""
        found = self._rounded(weight)
        return QuantizedWeight(codes=found.codes.cpu(), scale=found.scale.cpu(), axis=self.axis)

    def _rounded(self, weight: Tensor) -> QuantizedWeight:
        scale = weight_scale(weight, self.int_format, self.axis)
        codes = quantize_tensor(weight, scale, self.int_format, self.rounding, self.axis)
        return QuantizedWeight(codes=codes, scale=scale, axis=self.axis)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, weight: Tensor, rounded: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG004
        return rounded.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG004
        return gradient, None
