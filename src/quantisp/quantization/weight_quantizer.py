"""What fine-tuning puts between a float weight and the network: what its codes stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding

__all__ = ["LEAST_RATIO", "WeightQuantizer"]

# A learned scale must stay above zero; this far below its start it has lost every code.
LEAST_RATIO = 2.0**-8


class WeightQuantizer(nn.Module, ABC):
    """Quantizes one layer's weight in every forward pass, and says how gradients come back.

    Args:
        int_format: the codes that there are.
        rounding: what becomes of a value in the middle between two codes.
        axis: along which the scale varies, or None for one scale.
    """

    # Parameters that are learned beside the weight, at their own rate.
    scale_parameters: tuple[str, ...] = ()

    def __init__(self, *, int_format: IntFormat, rounding: Rounding, axis: int | None) -> None:
        super().__init__()
        self.int_format = int_format
        self.rounding: Rounding = rounding
        self.axis = axis

    @abstractmethod
    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Codes times scale, with the gradients that the method gives them."""

    @abstractmethod
    def quantized(self, weight: Float[Tensor, "*shape"]) -> QuantizedWeight:
        """The codes and the scale behind ``forward``, to the last bit, on the CPU."""
