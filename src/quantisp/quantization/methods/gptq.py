"""GPTQ: each column of a weight is rounded in turn, and the columns to come make up for its error.

Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate post-training quantization for
generative pre-trained transformers", ICLR 2023, algorithm 1 with act-order (its H is our Gram
matrix, up to a factor of 2 that cancels), after the solution of Hassibi and Stork, "Second order
derivatives for network pruning: Optimal brain surgeon", 1992. Its convolutions are the matrices of
their unfolded inputs.

Two things are added. The weight that is approached is the one that fits the float network's output
best on the quantized network's inputs (W C G^-1, with C the cross moment and G the Gram matrix), so
that a layer also makes up for the layers before it: the asymmetric calibration of Li et al.,
"GPTAQ: Efficient finetuning-free quantization for asymmetric calibration", ICML 2025, in closed form. And
each row's scale is chosen among several by the error that is left, not before.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding, round_tensor
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["gptq", "output_error", "target_matrix"]

# Added to the diagonal of the Gram matrix, as a share of its mean.
DAMPING = 0.002
# Shares of the absolute maximum that are tried as the range of a row.
RANGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


def gptq(
    target: Float[Tensor, "rows k"],
    gram: Float[Tensor, "k k"],
    int_format: IntFormat,
    rounding: Rounding,
    *,
    shared_scale: bool,
) -> tuple[Float[Tensor, "rows k"], Float[Tensor, " rows"]]:
    """Codes and scale of one weight matrix.

    Args:
        target: what to approach, float64.
        gram: second moments of the inputs, float64.
        int_format: the codes that there are.
        rounding: what becomes of a value in the middle between two codes.
        shared_scale: one scale for all rows.

    Returns:
        Codes as float64, and each row's scale in steps that float32 has.
    """
    order = torch.argsort(gram.diagonal(), descending=True)
    factor = _inverse_factor(gram[order][:, order])
    largest = target.abs().amax(dim=1)
    if shared_scale:
        largest = largest.amax().expand_as(largest)
    best_codes, best_scale = torch.zeros_like(target), torch.ones_like(largest)
    best_error = torch.full_like(largest, torch.inf)
    for share in RANGES:
        scale = _representable(share * largest / int_format.qmax)
        codes = torch.empty_like(target)
        codes[:, order] = _rounded(target[:, order], factor, scale, int_format, rounding)
        error = output_error(target, codes * scale[:, None], gram)
        if shared_scale:
            error = error.sum().expand_as(error)
        better = error < best_error
        best_codes = torch.where(better[:, None], codes, best_codes)
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return best_codes, best_scale


def target_matrix(
    weight: Float[Tensor, "rows k"], gram: Float[Tensor, "k k"], cross: Float[Tensor, "k k"]
) -> Float[Tensor, "rows k"]:
    """The weight whose outputs on the quantized network's inputs are nearest to the float ones."""
    damped = _damped(gram)
    # Damping pulls towards the weight itself, not towards zero.
    pulled = cross + (damped - gram)
    return torch.linalg.solve(damped, (weight @ pulled).mT).mT


def output_error(
    target: Float[Tensor, "rows k"], weight: Float[Tensor, "rows k"], gram: Float[Tensor, "k k"]
) -> Float[Tensor, " rows"]:
    """The mean squared error of each row's outputs."""
    apart = target - weight
    return ((apart @ gram) * apart).sum(dim=1)


def _damped(gram: Tensor) -> Tensor:
    # Inputs that are always zero leave a diagonal of zeros; their weights do not matter.
    amount = DAMPING * gram.diagonal().mean()
    return gram + (amount + torch.finfo(gram.dtype).tiny) * torch.eye(len(gram), dtype=gram.dtype)


def _inverse_factor(gram: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse: row i weighs the error of column i on the rest."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_damped(gram)))
    return torch.linalg.cholesky(inverse, upper=True)


def _representable(scale: Tensor) -> Tensor:
    """Rounded to float32, and 1 where it would be 0."""
    scale = scale.float().double()
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


def _rounded(
    target: Tensor, factor: Tensor, scale: Tensor, int_format: IntFormat, rounding: Rounding
) -> Tensor:
    left = target.clone()
    codes = torch.empty_like(target)
    for column in range(target.shape[1]):
        quotient = round_tensor(left[:, column] / scale, rounding)
        codes[:, column] = quotient.clamp(int_format.qmin, int_format.qmax)
        error = (left[:, column] - codes[:, column] * scale) / factor[column, column]
        left[:, column:] -= error[:, None] * factor[column, column:]
    return codes
