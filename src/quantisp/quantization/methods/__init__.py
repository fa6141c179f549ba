"""The methods that choose codes and scales: one file for each paper, one line for each method.

To add one, write its file beside ``rtn.py`` and name its function in ``METHODS``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from quantisp.errors import SettingError
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import Rounding

__all__ = ["METHODS", "LayerMethod", "find_method"]


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


METHODS: dict[str, LayerMethod] = {
    "rtn": round_to_nearest,
}


def find_method(name: str) -> LayerMethod:
    """The method of that name.

    Raises:
        SettingError: there is none.
    """
    if name not in METHODS:
        raise SettingError(
            f"expected a method among {', '.join(METHODS)}, found {name!r}: choose one of them"
        )
    return METHODS[name]
