"""What a plan says of all activations alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from quantisp.errors import SettingError

__all__ = [
    "ACCUMULATOR_BITS",
    "MAX_ACTIVATION_BITS",
    "MIN_ACTIVATION_BITS",
    "OBSERVERS",
    "TIE_RULES",
    "ActivationSettings",
    "Observer",
    "TieRule",
    "check_accumulator_bits",
    "check_activation_bits",
]

MIN_ACTIVATION_BITS = 4
MAX_ACTIVATION_BITS = 16

Observer = Literal["mse", "minmax", "percentile"]
OBSERVERS: tuple[Observer, ...] = get_args(Observer)
TieRule = Literal["half_up", "half_even"]
TIE_RULES: tuple[TieRule, ...] = get_args(TieRule)
LEAST_OUTPUT_BITS = 8
BIAS_BITS = range(8, 49)
ACCUMULATOR_BITS = range(8, 65)
MULTIPLIER_BITS = range(2, 17)


def check_activation_bits(bits: int, name: str = "activation") -> None:
    """Refuse a width that there is not.

    Raises:
        SettingError: fewer than 4 bits, or more than 16.
    """
    if bits not in range(MIN_ACTIVATION_BITS, MAX_ACTIVATION_BITS + 1):
        raise SettingError(
            f"expected {name} bits from {MIN_ACTIVATION_BITS} to {MAX_ACTIVATION_BITS}, found "
            f"{bits}: choose a width in that range"
        )


def check_accumulator_bits(bits: int) -> None:
    """Refuse a width that there is not.

    Raises:
        SettingError: fewer than 8 bits, or more than 64.
    """
    if bits not in ACCUMULATOR_BITS:
        raise SettingError(
            f"expected accumulator bits from {ACCUMULATOR_BITS[0]} to {ACCUMULATOR_BITS[-1]}, "
            f"found {bits}: 32 is usual"
        )


@dataclass(frozen=True, kw_only=True)
class ActivationSettings:
    """How activations are quantized, whatever their widths.

    Args:
        observer: how a tensor's range is found: ``mse`` (least squared error), ``minmax`` or
            ``percentile``.
        percentile: of the magnitudes that ``percentile`` keeps in range.
        input_bits: 4 to 16, of the input, which is [0, 1] in 2^bits - 1 steps.
        output_bits: 4 to 16, of the output, likewise; None is the width of the activations, but at
            least 8.
        sum_bits: 4 to 16, of every tensor that is added to another one, and at least the width of
            the activations; what reads such a tensor for anything else gets it at that width. None
            is the width of the activations.
        bias_bits: 8 to 48, of the biases.
        tie_rule: what becomes of a result in the middle between two integers.
        bias_correction: let biases make up for the mean error of each channel.
        power_of_two: choose scales, those of weights too, whose ratios are powers of two, so that
            every multiplier is one.
        multiplier_bits: 2 to 16, of the unsigned multipliers.
        accumulator_bits: 8 to 64: weights are changed, as little as can be, so that no input makes
            a layer's sum of products and bias wider; None is as wide as sums have to be.

    Raises:
        SettingError: a value that does not exist.
    """

    observer: Observer = "mse"
    percentile: float = 99.99
    input_bits: int = 10
    output_bits: int | None = None
    sum_bits: int | None = None
    bias_bits: int = 32
    tie_rule: TieRule = "half_up"
    bias_correction: bool = True
    power_of_two: bool = False
    multiplier_bits: int = 16
    accumulator_bits: int | None = None

    def __post_init__(self) -> None:
        for value, choices in ((self.observer, OBSERVERS), (self.tie_rule, TIE_RULES)):
            if value not in choices:
                raise SettingError(
                    f"expected one of {', '.join(choices)}, found {value!r}: choose one of them"
                )
        if not 50.0 < self.percentile <= 100.0:
            raise SettingError(
                f"expected a percentile above 50 and at most 100, found {self.percentile}: "
                "for example 99.99"
            )
        check_activation_bits(self.input_bits, "input")
        if self.output_bits is not None:
            check_activation_bits(self.output_bits, "output")
        if self.sum_bits is not None:
            check_activation_bits(self.sum_bits, "sum")
        if self.bias_bits not in BIAS_BITS:
            raise SettingError(
                f"expected bias bits from {BIAS_BITS[0]} to {BIAS_BITS[-1]}, found "
                f"{self.bias_bits}: 32 is usual"
            )

        if self.multiplier_bits not in MULTIPLIER_BITS:
            raise SettingError(
                f"expected multiplier bits from {MULTIPLIER_BITS[0]} to {MULTIPLIER_BITS[-1]}, "
                f"found {self.multiplier_bits}: 16 is usual"
            )
        if self.accumulator_bits is not None:
            check_accumulator_bits(self.accumulator_bits)

    def output_width(self, bits: int) -> int:
        """The width of an output whose layer has so many bits."""
        return max(bits, LEAST_OUTPUT_BITS) if self.output_bits is None else self.output_bits
