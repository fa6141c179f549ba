"""Functions of one number: what a table in hardware would hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["FUNCTIONS", "Function", "apply_function"]


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function, and what is known of its values.

    Args:
        compute: of the values and the parameters.
        least: where it neither rises nor falls all the way, the least value that it gives for any
            input; it rises for inputs that are not negative.
    """

    compute: Callable[..., Tensor]
    least: float | None = None


def _leaky_relu(x: Tensor, slope: float) -> Tensor:
    return functional.leaky_relu(x, slope)


def _clamp(x: Tensor, lower: float, upper: float) -> Tensor:
    return x.clamp(lower, upper)


def _affine(x: Tensor, factor: float, offset: float) -> Tensor:
    return x * factor + offset


def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x)


FUNCTIONS: dict[str, Function] = {
    "abs": Function(compute=torch.abs, least=0.0),
    "affine": Function(compute=_affine),
    "clamp": Function(compute=_clamp),
    "gelu": Function(compute=_gelu, least=-0.17),
    "hardsigmoid": Function(compute=functional.hardsigmoid),
    "hardswish": Function(compute=functional.hardswish, least=-0.375),
    "leaky_relu": Function(compute=_leaky_relu),
    "sigmoid": Function(compute=torch.sigmoid),
    "silu": Function(compute=functional.silu, least=-0.2785),
    "softplus": Function(compute=functional.softplus),
    "tanh": Function(compute=torch.tanh),
}


def apply_function(
    name: str, parameters: Sequence[float], x: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The function of each value."""
    return FUNCTIONS[name].compute(x, *parameters)
