"""GPTQ: each column of a weight is rounded in turn, and the columns to come make up for its error.

Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate post-training quantization for
generative pre-trained transformers", ICLR 2023, algorithm 1 with act-order. Its
H is our Gram matrix, but for a factor of 2 that cancels; a convolution is the matrix of its
unfolded inputs. Ours is the choice of the scale: each row takes that of several whose error is
least in the end, instead of the absolute maximum.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.matrices import as_matrix, from_matrix
from quantisp.quantization.rounding import Rounding, round_tensor
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["BLOCK", "as_weight", "gptq", "output_error", "round_by_gptq"]

# Added to the diagonal of the Gram matrix, as a share of its mean.
DAMPING = 0.002
# Shares of the absolute maximum that are tried as the range of a row.
RANGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)

# Columns between which errors are told at once.
BLOCK = 64

Matrix = Float[Tensor, "groups rows k"]
Gram = Float[Tensor, "groups k k"]
Scales = Float[Tensor, "groups rows"]


def round_by_gptq(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, None]:
    """Quantize one weight; the arguments are those of ``CalibratedMethod``. The bias stays."""
    target = as_matrix(layer, weight.double())
    codes, scale = gptq(target, statistics.gram, int_format, rounding, shared=axis is None)
    return as_weight(layer, weight, codes, scale, axis), None


def gptq(
    target: Matrix, gram: Gram, int_format: IntFormat, rounding: Rounding, *, shared: bool
) -> tuple[Matrix, Scales]:
    """Codes and scales of one weight, in float64.

    Args:
        target: the matrices to approach.
        gram: second moments of the inputs.
        int_format: the codes that there are.
        rounding: what becomes of a value in the middle between two codes.
        shared: one scale for everything, instead of one a row.

    Returns:
        Codes, and scales that float32 can hold.
    """
    order = torch.argsort(gram.diagonal(dim1=1, dim2=2), dim=1, descending=True)
    columns = order[:, None].expand_as(target)
    ordered = gram.gather(1, order[:, :, None].expand_as(gram))
    ordered = ordered.gather(2, order[:, None].expand_as(gram))
    factor = _inverse_factor(ordered)
    largest = target.abs().amax(dim=2)
    if shared:
        largest = largest.amax().expand_as(largest)
    best_codes, best_scale = torch.zeros_like(target), torch.ones_like(largest)
    best_error = torch.full_like(largest, torch.inf)
    scales = [_representable(share * largest / int_format.qmax) for share in RANGES]
    # Rows do not know of each other: all ranges are tried in one pass.
    rows = target.gather(2, columns).repeat(1, len(scales), 1)
    all_found = _rounded(rows, factor, torch.cat(scales, dim=1), int_format, rounding)
    for scale, found in zip(scales, all_found.chunk(len(scales), dim=1), strict=True):
        codes = torch.empty_like(target).scatter_(2, columns, found)
        error = output_error(target, codes * scale[:, :, None], gram, shared=shared)
        better = error < best_error
        best_codes = torch.where(better[:, :, None], codes, best_codes)
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    return best_codes, best_scale


def output_error(target: Matrix, weight: Matrix, gram: Gram, *, shared: bool = False) -> Scales:
    """The mean squared error of each row's outputs; their sum everywhere if rows share a scale."""
    apart = target - weight
    error = ((apart @ gram) * apart).sum(dim=2)
    return error.sum().expand_as(error) if shared else error


def as_weight(
    layer: nn.Module, weight: Tensor, codes: Matrix, scale: Scales, axis: int | None
) -> QuantizedWeight:
    """Codes and scales of the matrices as those of the layer's weight."""
    shaped = from_matrix(layer, codes, weight).to(torch.int32)
    flat = scale.float().flatten()
    if axis is None:
        return QuantizedWeight(codes=shaped, scale=flat[0], axis=None)
    groups = layer.groups if isinstance(layer, nn.ConvTranspose2d) else 1
    return QuantizedWeight(codes=shaped, scale=flat, axis=axis, groups=groups)


def damped(gram: Gram, share: float = DAMPING) -> Gram:
    """With that share of the mean more on the diagonal: zeros leave nothing to invert."""
    amount = share * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    amount = amount.clamp(min=torch.finfo(torch.float32).tiny)
    return gram + amount[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype)


def _inverse_factor(gram: Gram) -> Gram:
    """The upper Cholesky factor of the inverse: row i weighs the error of column i on the rest."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(gram)))
    return torch.linalg.cholesky(inverse, upper=True)


def _representable(scale: Scales) -> Scales:
    """Rounded to float32, and 1 where it would be 0."""
    scale = scale.float().double()
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


def _rounded(
    target: Matrix, factor: Gram, scale: Scales, int_format: IntFormat, rounding: Rounding
) -> Matrix:
    # One column after the other lies in one piece; what is far is told of a block at once.
    left = target.mT.contiguous()
    codes = torch.empty_like(left)
    for start in range(0, left.shape[1], BLOCK):
        end = start + BLOCK
        near, block = left[:, start:end], factor[:, start:end, start:end]
        errors = torch.empty_like(near)
        for column in range(near.shape[1]):
            quotient = round_tensor(near[:, column] / scale, rounding)
            code = quotient.clamp(int_format.qmin, int_format.qmax)
            error = (near[:, column] - code * scale) / block[:, column, column, None]
            near[:, column + 1 :] -= block[:, column, column + 1 :, None] * error[:, None]
            codes[:, start + column], errors[:, column] = code, error
        left[:, end:] -= factor[:, start:end, end:].mT @ errors
    return codes.mT
