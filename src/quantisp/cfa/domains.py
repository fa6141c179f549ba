"""What the values of a mosaic stand for: linear light, its square root, or sRGB's codes.

A network gets and gives values of one domain. The square root makes the noise of photons nearly
even, and leaves room for noise below black. It is of each sample alone, a table in hardware, and
rounded rightly everywhere, so that tiles equal the whole.

Source: Anscombe, "The transformation of Poisson, binomial and negative-binomial data", Biometrika
1948; the place of black is ours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa.color import decode_srgb, encode_srgb

__all__ = ["DOMAINS", "from_domain", "rooted", "to_domain", "unrooted"]

DOMAINS = ("srgb", "linear", "root")
# The light below black that becomes 0: three standard deviations of reading at ISO 800.
BELOW_BLACK = 0.01


def to_domain(domain: str, linear: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Balanced linear samples as a network meets them; at most 1.

    Args:
        domain: one of ``DOMAINS``.
        linear: 0 at black, 1 at saturation. What is saturated in one colour is white, not that
            colour's complement, so more than 1 is 1.
    """
    if domain == "srgb":
        return encode_srgb(linear)
    clipped = linear.clamp_max(1.0)
    return rooted(clipped) if domain == "root" else clipped


def from_domain(domain: str, values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """A network's output as linear light; sRGB's codes are clipped to [0, 1] before."""
    if domain == "srgb":
        return decode_srgb(values)
    return unrooted(values) if domain == "root" else values


def rooted(linear: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """sqrt((x + b) / (1 + b)), b the light below black; 1 stays 1, black is at 0.0995.

    >>> rooted(torch.tensor([-0.02, 0.0, 1.0]))
    tensor([0.0000, 0.0995, 1.0000])
    """
    return ((linear + BELOW_BLACK).clamp_min(0.0) / (1.0 + BELOW_BLACK)).sqrt()


def unrooted(values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The inverse of :func:`rooted`; below 0 it goes on as a line, so that gradients do not end."""
    scaled = values * math.sqrt(1.0 + BELOW_BLACK)
    square = torch.where(values >= 0.0, scaled * scaled, math.sqrt(BELOW_BLACK) * scaled)
    return square - BELOW_BLACK
