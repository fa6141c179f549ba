"""How quality is measured, in words that go into every result and into every job's key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from quantisp.cfa import CFAPattern
from quantisp.evaluation.execution import Execution
from quantisp.evaluation.measure import BORDER_PX, LEAST_TILE_MSE, PSNR_CAP_DB
from quantisp.metrics import TILE_PX
from quantisp.quantization import ActivationSettings

__all__ = ["MEASUREMENT", "describe_measurement", "describe_pattern", "describe_responses"]

MEASUREMENT: Mapping[str, str | int | float] = MappingProxyType(
    {
        "version": 1,
        "output": "clipped to [0, 1] and rounded to 8 bits",
        "psnr": "from one mean squared error over all pixels and channels of a picture; "
        "the mean over pictures",
        "psnr_cap_db": PSNR_CAP_DB,
        "psnr_to_float": "against the float network's output, clipped and not rounded; the mean "
        "over the pictures that differ from it",
        "border_px": 0,
        "border_crop10_px": BORDER_PX,
        "tile_px": TILE_PX,
        "tile_mse_floor": LEAST_TILE_MSE,
        "ssim": "Gaussian window 11x11, sigma 1.5, mean over R, G, B",
        "weights": "symmetric, zero point 0, narrow range, round half to even",
        "activations": "float32",
    }
)


def describe_measurement(
    input_bits: int | None,
    activation_bits: Sequence[int | None],
    settings: ActivationSettings | None = None,
    execution: Execution | None = None,
) -> dict[str, str | int | float]:
    """``MEASUREMENT``, and what integers there are besides weights.

    Args:
        input_bits: what every network's input is rounded to, or None.
        activation_bits: the widths that were studied; None is float.
        settings: of their arithmetic.
        execution: how networks with such widths ran, where it was in integers.
    """
    found = dict(MEASUREMENT)
    if input_bits is not None:
        found["input_rounding"] = (
            f"to {input_bits} bits, [0, 1] in {2**input_bits - 1} steps, for the float network too"
        )
    if any(bits is not None for bits in activation_bits):
        settings = settings or ActivationSettings()
        multipliers = "powers of two" if settings.power_of_two else "multipliers of 16 bits"
        run = "integers simulated in float32" if execution is None else "integers run as integers"
        found["activations"] = (
            f"float32, or {run}: one scale a tensor, zero point 0, unsigned where never negative; "
            f"{multipliers} and a shift, {settings.tie_rule.replace('_', ' ')}"
        )
        if settings.sum_bits is not None:
            found["activations"] = (
                f"{found['activations']}; what is added to others at least {settings.sum_bits} bits"
            )
        if execution is not None:
            found["activations"] = f"{found['activations']}; {execution.describe()}"
    return found


def describe_pattern(pattern: CFAPattern) -> dict[str, list[str] | dict[str, list[float]]]:
    """The tile and what each of its letters collects of (R, G, B)."""
    return {
        "tile": list(pattern.tile),
        "responses": {letter: list(pattern.response(letter)) for letter in pattern.letters},
    }


def describe_responses(pattern: CFAPattern) -> str:
    """What each letter collects, as a sum: ``R = 1 R; ...; W = 0.333333 R + 0.333333 G + ...``."""
    return "; ".join(
        f"{letter} = "
        + " + ".join(
            f"{weight:.6g} {colour}"
            for weight, colour in zip(pattern.response(letter), "RGB", strict=True)
            if weight
        )
        for letter in pattern.letters
    )
