"""ACIQ: where to clip, from the shape of the distribution alone.

Source: Banner, Nahshan, Hoffer, Soudry, "ACIQ: Analytical clipping for integer quantization of
neural networks", arXiv 1810.05723; as Banner, Nahshan, Soudry, "Post training 4-bit quantization
of convolutional networks for rapid-deployment", NeurIPS 2019, section 3.

The paper's expected squared error of values clipped to [-alpha, alpha], M bits wide, is what
rounding adds inside, delta^2 / 12 with delta = 2 alpha / 2^M, and what clipping adds outside:

* Laplace of scale b: 2 b^2 exp(-alpha / b) + alpha^2 / (3 * 2^(2 M));
* Gauss of deviation sigma: (alpha^2 + sigma^2) (1 - erf(alpha / (sqrt(2) sigma)))
  - sqrt(2 / pi) alpha sigma exp(-alpha^2 / (2 sigma^2)) + alpha^2 / (3 * 2^(2 M)).

Both are convex in alpha, and the best one is where the derivative is 0. The paper cuts the range
into 2^M intervals. Our codes -qmax to qmax cut it into 2 qmax, which takes the place of 2^M. The
extra code of the full range only catches weights that would be clipped, and is left out of account.

Ours is the choice between the priors: of each slice the likelier one. With mu_1 = mean |w| and
mu_2 = mean w^2, which fit b and sigma^2 to a mean of zero (a weight's zero_point is 0), the
likelihoods are those of entropies ln(2 e b) and ln(2 pi e sigma^2) / 2, so that it is Laplace where
mu_1 / sqrt(mu_2) < sqrt(pi / (2 e)) = 0.760. Samples of Laplace have 0.707, of Gauss 0.798.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.affine import QuantizedWeight, quantize_tensor, weight_scale
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding

__all__ = ["clip_analytically", "gauss_clipping", "laplace_clipping"]

# The ratio below which Laplace is the likelier prior.
LAPLACE_BELOW = math.sqrt(math.pi / (2 * math.e))
# Above every best clipping value, in units of b or sigma: 16 bits of Laplace have 20.
WIDEST = 64.0


def clip_analytically(
    weight: Float[Tensor, "*shape"], int_format: IntFormat, rounding: Rounding, axis: int | None
) -> QuantizedWeight:
    """Quantize one weight; the arguments are those of ``LayerMethod``.

    No slice is clipped above its absolute maximum. The error is least for the prior, and may be
    greater than that of ``round_to_nearest`` where a slice does not follow it.

    >>> import torch
    >>> weight = torch.tensor([[0.1, -0.1, 0.3, -0.2, 0.0, 0.1, -0.1, 2.0]])
    >>> found = clip_analytically(weight, IntFormat(bits=4), "half_even", 0)
    >>> found.codes.tolist(), round(7 * found.scale.item(), 2)
    ([[0, 0, 1, -1, 0, 0, 0, 7]], 1.74)

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    widest = weight_scale(weight, int_format, axis)
    alpha = _clipping(weight, 2 * int_format.qmax, axis)
    fitted = (alpha / int_format.qmax).to(weight.dtype).clamp(min=torch.finfo(weight.dtype).tiny)
    scale = torch.where(alpha > 0, torch.minimum(fitted, widest), widest)
    codes = quantize_tensor(weight, scale, int_format, rounding, axis)
    return QuantizedWeight(codes=codes, scale=scale, axis=axis)


@cache
def laplace_clipping(intervals: int) -> float:
    """The best alpha / b of a Laplace distribution.

    >>> [round(laplace_clipping(2**bits), 2) for bits in (2, 3, 4)]
    [2.83, 3.9, 5.03]

    Args:
        intervals: between -alpha and alpha, which the paper calls 2^M.
    """
    return _root(lambda alpha: alpha / (3 * intervals**2) - math.exp(-alpha))


@cache
def gauss_clipping(intervals: int) -> float:
    """The best alpha / sigma of a normal distribution.

    >>> [round(gauss_clipping(2**bits), 2) for bits in (2, 3, 4)]
    [1.71, 2.15, 2.56]

    Args:
        intervals: between -alpha and alpha, which the paper calls 2^M.
    """

    def slope(alpha: float) -> float:
        density = math.exp(-(alpha**2) / 2) / math.sqrt(2 * math.pi)
        beyond = math.erfc(alpha / math.sqrt(2)) / 2
        return alpha / (6 * intervals**2) - (density - alpha * beyond)

    return _root(slope)


def _clipping(weight: Tensor, intervals: int, axis: int | None) -> Float[Tensor, "*channels"]:
    # float64, in which no square of a float32 underflows.
    slices = weight.reshape(1, -1) if axis is None else weight.transpose(0, axis).flatten(1)
    slices = slices.double()
    b, sigma = slices.abs().mean(dim=1), slices.square().mean(dim=1).sqrt()
    alpha = torch.where(
        b < LAPLACE_BELOW * sigma,
        b * laplace_clipping(intervals),
        sigma * gauss_clipping(intervals),
    )
    return alpha.squeeze(0) if axis is None else alpha


def _root(slope: Callable[[float], float]) -> float:
    """Where a rising function passes zero, to the last bit."""
    below, above = 0.0, WIDEST
    while below < (middle := (below + above) / 2) < above:
        if slope(middle) < 0:
            below = middle
        else:
            above = middle
    return above
