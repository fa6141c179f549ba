"""The methods that choose codes and scales: one file for each paper, one line for each method.

To add one, write its file beside ``rtn.py`` and name its function in ``METHODS`` if the weight is
all that it looks at, in ``CALIBRATED`` if it looks at a layer's inputs, else in ``NETWORK``. Other
packages bring theirs through entry points.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.aciq import clip_analytically
from quantisp.quantization.methods.adaround import round_adaptively
from quantisp.quantization.methods.auto import choose_steps
from quantisp.quantization.methods.bias_correction import correct_biases
from quantisp.quantization.methods.bit_split import round_by_bit_split
from quantisp.quantization.methods.brecq import round_blocks
from quantisp.quantization.methods.equalization import round_equalized
from quantisp.quantization.methods.external import GROUPS, external_methods
from quantisp.quantization.methods.gptq import round_by_gptq
from quantisp.quantization.methods.incremental import round_incrementally
from quantisp.quantization.methods.k_best import round_by_k_best, round_by_k_best_with_bias
from quantisp.quantization.methods.mse import minimise_squared_error
from quantisp.quantization.methods.quantease import (
    round_by_quantease,
    round_by_quantease_with_bias,
)
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.methods.yaqa import round_by_yaqa
from quantisp.quantization.network import NetworkMethod
from quantisp.quantization.rounding import Rounding
from quantisp.quantization.statistics import LayerStatistics

__all__ = [
    "CALIBRATED",
    "LOOKS_AT_CURVATURE",
    "METHODS",
    "NETWORK",
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
}
CALIBRATED: dict[str, CalibratedMethod] = {
    "adaround": round_adaptively,
    "bit-split": round_by_bit_split,
    "gptq": round_by_gptq,
    "k-best": round_by_k_best,
    "k-best-bias": round_by_k_best_with_bias,
    "quantease": round_by_quantease,
    "quantease-bias": round_by_quantease_with_bias,
    "yaqa": round_by_yaqa,
}
# Of these, those that look at how the network's output follows the layer's outputs, too.
LOOKS_AT_CURVATURE = frozenset({"yaqa"})
NETWORK: dict[str, NetworkMethod] = {
    "equalization": round_equalized,
    "bias-correction": correct_biases,
    "brecq": round_blocks,
    "incremental": round_incrementally,
    "auto": choose_steps,
}


@functools.cache
def load_external_methods() -> None:
    """Add what installed packages bring, all or nothing, and import none of them.

    See :mod:`quantisp.quantization.methods.external`.

    Raises:
        SettingError: a package uses a name again.
    """
    taken = {*METHODS, *CALIBRATED, *NETWORK}
    found: list[dict[str, Callable[..., Any]]] = []
    for group in GROUPS:
        found.append(external_methods(group, taken))
        taken |= found[-1].keys()
    for methods, brought in zip((METHODS, CALIBRATED, NETWORK), found, strict=True):
        methods.update(brought)


def method_names() -> tuple[str, ...]:
    """Every method that a plan can name."""
    load_external_methods()
    return (*METHODS, *CALIBRATED, *NETWORK)


def needs_calibration(name: str) -> bool:
    """Whether the method looks at inputs."""
    load_external_methods()
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
