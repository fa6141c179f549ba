"""The methods that choose codes and scales: one file for each paper, one line for each method.

To add one, write its file beside ``rtn.py`` and name its function in ``METHODS`` if the weight is
all that it looks at, else in ``CALIBRATED``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.aciq import clip_analytically
from quantisp.quantization.methods.bit_split import split_bits
from quantisp.quantization.methods.gptq import round_by_gptq
from quantisp.quantization.methods.mse import minimise_squared_error
from quantisp.quantization.methods.quantease import (
    round_by_quantease,
    round_by_quantease_with_bias,
)
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import Rounding
from quantisp.quantization.statistics import LayerStatistics

__all__ = [
    "AUTO",
    "AUTO_STEPS",
    "CALIBRATED",
    "METHODS",
    "CalibratedMethod",
    "LayerMethod",
    "check_method",
    "method_names",
    "needs_calibration",
]


@runtime_checkable
class LayerMethod(Protocol):
    """A method that treats each layer by itself, and looks at nothing but its weight."""

    def __call__(
        self,
        weight: Float[Tensor, "*shape"],
        int_format: IntFormat,
        rounding: Rounding,
        axis: int | None,
    ) -> QuantizedWeight:
        """Quantize one weight.

        Args:
            weight: float32, finite; not to be changed.
            int_format: the codes that there are.
            rounding: what becomes of a value in the middle between two codes.
            axis: along which the scale varies, or None for one scale.

        Returns:
            Codes within the format, in the weight's shape, and the float32 scale.
        """
        ...


@runtime_checkable
class CalibratedMethod(Protocol):
    """A method that treats each layer by itself, and looks at what comes into it."""

    def __call__(
        self,
        layer: nn.Module,
        weight: Float[Tensor, "*shape"],
        int_format: IntFormat,
        rounding: Rounding,
        axis: int | None,
        statistics: LayerStatistics,
    ) -> tuple[QuantizedWeight, Float[Tensor, " channels"] | None]:
        """Quantize one weight.

        Args:
            layer: whose weight it is; not to be changed.
            weight, int_format, rounding, axis: as for ``LayerMethod``.
            statistics: of the layer's inputs, with the layers before it quantized.

        Returns:
            The same as of ``LayerMethod``, and the layer's new bias, or None to leave it.
        """
        ...


METHODS: dict[str, LayerMethod] = {
    "rtn": round_to_nearest,
    "mse": minimise_squared_error,
    "aciq": clip_analytically,
    "bit-split": split_bits,
}
CALIBRATED: dict[str, CalibratedMethod] = {
    "gptq": round_by_gptq,
    "quantease": round_by_quantease,
    "quantease-bias": round_by_quantease_with_bias,
}
# Tries the steps in this order; each stays if the network's output is nearer to float with it.
AUTO = "auto"
AUTO_STEPS = ("mse", "quantease", "quantease-bias")


def method_names() -> tuple[str, ...]:
    """Every method that a plan can name."""
    return (*METHODS, *CALIBRATED, AUTO)


def needs_calibration(name: str) -> bool:
    """Whether the method looks at inputs."""
    return name not in METHODS


def check_method(name: str) -> None:
    """Refuse a name that is no method's.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in method_names():
        raise SettingError(
            f"expected a method among {', '.join(method_names())}, found {name!r}: "
            "choose one of them"
        )
