"""The range of a tensor, from values of it: three ways to choose its scale.

``minmax`` holds every value. ``percentile`` holds all but the largest few magnitudes. ``mse`` takes
the scale of least squared error over a grid: clipping a few values gives all others finer steps
(Nagel et al., "A white paper on neural network quantization", arXiv 2106.08295, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.activations.powers import nearest_powers
from quantisp.quantization.activations.settings import ActivationSettings
from quantisp.quantization.activations.tensors import TensorQuantizer

__all__ = ["observe"]

# Other pictures go beyond those of the calibration. The largest value is followed by others, as if
# the tail went on, each of so little weight that they count only where steps are fine anyway, from
# about 13 bits on, and room costs nothing.
BEYOND = (1.25, 1.5, 2.0)
BEYOND_WEIGHT = 1e-3
# Enough to tell scales apart; a tensor has millions of values.
SAMPLES = 1 << 17
# Times the scale of the range, then times the best so far.
GRIDS = (
    tuple(2.0 ** (step / 4) for step in range(4, -33, -1)),
    tuple(2.0 ** (step / 32) for step in range(-7, 8)),
)


def observe(
    values: Sequence[Float[Tensor, ...]],
    *,
    bits: int,
    signed: bool,
    settings: ActivationSettings,
    least_scale: float,
    power_of_two_times: float | None = None,
) -> TensorQuantizer:
    """The quantizer of a tensor.

    Args:
        values: of the tensor, before it is quantized.
        bits, signed: of the quantizer.
        settings: how to choose, and what becomes of ties.
        least_scale: a finer one would tell apart what cannot differ.
        power_of_two_times: what the scale is to be a power of two times of; None is any scale.
    """
    found = _observed(values, bits=bits, signed=signed, settings=settings, least_scale=least_scale)
    if power_of_two_times is None:
        return found
    below, above = (
        replace(found, scale=float(scale))
        for scale in nearest_powers(torch.tensor(found.scale), power_of_two_times)
    )
    if settings.observer != "mse" or below.scale < least_scale:
        return above
    sample = _sampled(values)
    first, second = (
        _squared_error(sample, quantizer.scale, quantizer) for quantizer in (below, above)
    )
    return below if first < second else above


def _observed(
    values: Sequence[Tensor],
    *,
    bits: int,
    signed: bool,
    settings: ActivationSettings,
    least_scale: float,
) -> TensorQuantizer:
    unit = TensorQuantizer(bits=bits, signed=signed, scale=1.0)
    seen = _scale_of(_extremes(values), unit)
    # Where all was zero nothing is known of the range: the input's is as good as any.
    whole = max(seen or 1.0 / unit.qmax, least_scale)
    if settings.observer == "minmax" or not seen or whole <= least_scale:
        return TensorQuantizer(bits=bits, signed=signed, scale=whole)
    sample = _sampled(values)
    if settings.observer == "percentile":
        scale = _scale_of(_quantiles(sample, settings.percentile), unit)
    else:
        scale = _least_error(sample, whole, unit)
        return TensorQuantizer(bits=bits, signed=signed, scale=max(scale, least_scale))
    return TensorQuantizer(bits=bits, signed=signed, scale=max(min(scale, whole), least_scale))


def _extremes(values: Sequence[Tensor]) -> tuple[float, float]:
    return min(float(v.min()) for v in values), max(float(v.max()) for v in values)


def _scale_of(extremes: tuple[float, float], unit: TensorQuantizer) -> float:
    """The scale that just holds two values; 0 where they are 0."""
    low, high = extremes
    return max(high / unit.qmax, low / unit.qmin if unit.qmin else 0.0)


def _quantiles(sample: Tensor, percentile: float) -> tuple[float, float]:
    limit = torch.quantile(sample.abs(), percentile / 100.0)
    clipped = sample.clamp(-limit, limit)
    return float(clipped.min()), float(clipped.max())


def _sampled(values: Sequence[Tensor]) -> Float[Tensor, " samples"]:
    count = sum(value.numel() for value in values)
    # Odd, so that it meets every channel and column of the usual sizes.
    step = max(count // SAMPLES, 1) | 1
    return torch.cat([value.flatten()[::step] for value in values])


def _least_error(sample: Tensor, whole: float, unit: TensorQuantizer) -> float:
    ends = (min(float(sample.min()), 0.0), max(float(sample.max()), 0.0))
    tail = sample.new_tensor([end * factor for factor in BEYOND for end in ends])
    best, least = whole, float("inf")
    for grid in GRIDS:
        centre = best
        for factor in grid:
            scale = centre * factor
            error = _squared_error(sample, scale, unit)
            error += BEYOND_WEIGHT * _squared_error(tail, scale, unit)
            if error < least:
                best, least = scale, error
    return best


def _squared_error(values: Tensor, scale: float, unit: TensorQuantizer) -> float:
    codes = torch.round_(values / scale).clamp_(unit.qmin, unit.qmax)
    return float(codes.mul_(scale).sub_(values).square_().sum(dtype=torch.float64))
