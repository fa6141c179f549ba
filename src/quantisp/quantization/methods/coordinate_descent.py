"""Coordinate descent: one code of each row after the other moves to where the error is least.

Source: Behdin et al., "QuantEase: Optimization-based quantization for language models", arXiv
2309.01885, algorithm 1, here from a good start (that of GPTQ), and with each row's scale refitted
between the sweeps by least squares, which is their eq. 2 for the scale.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.gptq import output_error

__all__ = ["descend"]

SWEEPS = 12


def descend(
    target: Float[Tensor, "rows k"],
    gram: Float[Tensor, "k k"],
    codes: Float[Tensor, "rows k"],
    scale: Float[Tensor, " rows"],
    int_format: IntFormat,
    *,
    shared_scale: bool,
) -> tuple[Float[Tensor, "rows k"], Float[Tensor, " rows"]]:
    """Better codes and scales than the given ones, or those; the arguments are those of ``gptq``."""
    error = _error(target, codes, scale, gram, shared=shared_scale)
    for _ in range(SWEEPS):
        new_scale = _refitted(target, codes, scale, gram, shared=shared_scale)
        new_codes = _sweep(target, gram, codes.clone(), new_scale, int_format)
        new_error = _error(target, new_codes, new_scale, gram, shared=shared_scale)
        better = new_error < error
        if not bool(better.any()):
            break
        codes = torch.where(better[:, None], new_codes, codes)
        scale = torch.where(better, new_scale, scale)
        error = torch.where(better, new_error, error)
    return codes, scale


def _sweep(
    target: Tensor, gram: Tensor, codes: Tensor, scale: Tensor, int_format: IntFormat
) -> Tensor:
    slope = (target - codes * scale[:, None]) @ gram
    for column in range(target.shape[1]):
        curvature = gram[column, column]
        if curvature <= 0.0:
            continue
        wanted = codes[:, column] + slope[:, column] / (curvature * scale)
        moved = wanted.round().clamp(int_format.qmin, int_format.qmax)
        step = (moved - codes[:, column]) * scale
        codes[:, column] = moved
        slope -= step[:, None] * gram[column]
    return codes


def _refitted(target: Tensor, codes: Tensor, scale: Tensor, gram: Tensor, *, shared: bool) -> Tensor:
    seen = codes @ gram
    numerator, denominator = (seen * target).sum(dim=1), (seen * codes).sum(dim=1)
    if shared:
        numerator, denominator = (v.sum().expand_as(v) for v in (numerator, denominator))
    fitted = (numerator / denominator).float().double()
    sound = (denominator > 0) & (fitted > torch.finfo(torch.float32).tiny)
    return torch.where(sound, fitted, scale)


def _error(target: Tensor, codes: Tensor, scale: Tensor, gram: Tensor, *, shared: bool) -> Tensor:
    error = output_error(target, codes * scale[:, None], gram)
    return error.sum().expand_as(error) if shared else error
