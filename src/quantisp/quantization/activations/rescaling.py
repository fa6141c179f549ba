"""From an accumulator to the integers of the next tensor: ``(acc * M + 2^(s-1)) >> s``.

Once for a person and a plain integer, and what is needed to do the same with floats: M * 2^-s has
16 significant bits, so that float32 holds it exactly, and float64 the product with an accumulator
of up to 37 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.errors import RunError
from quantisp.quantization.activations.settings import TieRule

__all__ = ["MULTIPLIER_BITS", "Rescale", "choose_rescale", "rescale_scalar"]

MULTIPLIER_BITS = 16
MAX_SHIFT = 62


def rescale_scalar(
    accumulators: tuple[int, ...], multipliers: tuple[int, ...], shift: int, tie_rule: TieRule
) -> int:
    """The specification: the sum of products, shifted right and rounded once.

    >>> rescale_scalar((5,), (3,), 1, "half_up"), rescale_scalar((5,), (1,), 1, "half_even")
    (8, 2)

    Args:
        accumulators: one, or the two inputs of an addition.
        multipliers: of each; unsigned 16 bits, negative for what is subtracted.
        shift: 1 to 62.
        tie_rule: what becomes of a result in the middle between two integers.
    """
    total = sum(a * m for a, m in zip(accumulators, multipliers, strict=True))
    rounded = (total + (1 << (shift - 1))) >> shift
    tie = total & ((1 << shift) - 1) == 1 << (shift - 1)
    return rounded - 1 if tie_rule == "half_even" and tie and rounded % 2 else rounded


@dataclass(frozen=True, kw_only=True, eq=False)
class Rescale:
    """Multipliers and shifts.

    Args:
        multiplier: unsigned 16 bits: one, or one for each channel; one row for each input of an
            addition.
        shift: 1 to 62, for each channel.
    """

    multiplier: Int[Tensor, "*inputs_channels"]
    shift: Int[Tensor, "*channels"]

    def ratio(self) -> Float[Tensor, "*inputs_channels"]:
        """M * 2^-s, exactly, as float64."""
        return torch.ldexp(self.multiplier.double(), -self.shift)


def choose_rescale(
    ratio: Float[Tensor, "*inputs_channels"],
    *,
    power_of_two: bool = False,
    bits: int = MULTIPLIER_BITS,
) -> Rescale:
    """The multipliers and shifts that are nearest to some positive ratios of scales.

    Args:
        ratio: float64; what is added up shares one shift, that of its largest ratio.
        power_of_two: the ratios are powers of two, up to the rounding of scales, and multipliers
            are to be as small as they can: 1 where there is one of at most 1/2.
        bits: 2 to 16, of the multipliers.

    Raises:
        RunError: a ratio is too large for 16 bits and a shift of 1.
    """
    largest = ratio.amax(dim=0)
    # 2^(bits - 1) <= largest * 2^shift < 2^bits
    _, exponent = torch.frexp(largest)
    shift = (bits - exponent).clamp(1, MAX_SHIFT)
    # A ratio just below a power of two may round up to 2^bits.
    overflows = torch.ldexp(largest, shift).round() >= 1 << bits
    shift = torch.where(overflows, shift - 1, shift)
    if bool((shift < 1).any()) or not bool(torch.isfinite(ratio).all()):
        raise RunError(
            f"expected scales that {bits}-bit multipliers can bring together, found a ratio of "
            f"{float(largest.max()):.3g}: plan widths that differ less from tensor to tensor"
        )
    if power_of_two:
        ratio = torch.exp2(torch.log2(ratio).round())
        # As far as the smallest ratio needs it, and no farther.
        finest = (-torch.log2(ratio.amin(dim=0))).clamp(min=1.0).to(shift.dtype)
        shift = torch.minimum(shift, finest)
    multiplier = torch.ldexp(ratio, shift).round()
    return Rescale(multiplier=multiplier.to(torch.int64), shift=shift.to(torch.int64))
