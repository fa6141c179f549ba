"""QuantEase: coordinate descent, one code of each row after the other moves to the least error.

Source: Behdin et al., "QuantEase: Optimization-based quantization for language models", arXiv
2309.01885, algorithm 1, from GPTQ's codes. Between the sweeps each row's scale is refitted by least
squares. What is approached is not the float weight but the one that fits the float network's
outputs best on the quantized network's inputs, so that a layer makes up for those before it: the
asymmetric calibration of Li et al., "GPTAQ: Efficient finetuning-free quantization for asymmetric
calibration", ICML 2025, as one least squares problem.

With the bias corrected, too (Banner et al., "Post training 4-bit quantization of convolutional
networks for rapid-deployment", NeurIPS 2019, section 3.3, here in closed form), errors of the mean
cost nothing, and codes are chosen by the centred moments.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import bias_of
from quantisp.quantization.matrices import as_matrix
from quantisp.quantization.methods.gptq import (
    BLOCK,
    Gram,
    Matrix,
    Scales,
    as_weight,
    damped,
    gptq,
    output_error,
)
from quantisp.quantization.rounding import Rounding, round_tensor
from quantisp.quantization.statistics import LayerStatistics

__all__ = [
    "corrected_bias",
    "improved",
    "in_turn",
    "refitted",
    "round_by_quantease",
    "round_by_quantease_with_bias",
    "sweep",
    "target_weight",
    "without_means",
]

SWEEPS = 12


def round_by_quantease(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, None]:
    """Quantize one weight; the arguments are those of ``CalibratedMethod``. The bias stays."""
    codes, scale = _solve(layer, weight, int_format, rounding, axis, statistics)
    return as_weight(layer, weight, codes, scale, axis), None


def round_by_quantease_with_bias(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, Float[Tensor, " channels"] | None]:
    """Quantize one weight and correct the bias, where there is one."""
    seen = without_means(layer, statistics)
    codes, scale = _solve(layer, weight, int_format, rounding, axis, seen)
    rounded = as_weight(layer, weight, codes, scale, axis)
    return rounded, corrected_bias(layer, weight, rounded, statistics)


def without_means(layer: nn.Module, statistics: LayerStatistics) -> LayerStatistics:
    """The moments to choose codes by where the bias is corrected: centred, if there is one."""
    return statistics if bias_of(layer) is None else statistics.centred()


def corrected_bias(
    layer: nn.Module, weight: Tensor, rounded: QuantizedWeight, statistics: LayerStatistics
) -> Float[Tensor, " channels"] | None:
    """The bias with which the layer's outputs have the float layer's means; None without one."""
    bias = bias_of(layer)
    if bias is None:
        return None
    wanted = as_matrix(layer, weight.double()) @ statistics.float_mean[:, :, None]
    given = as_matrix(layer, rounded.dequantize().double()) @ statistics.mean[:, :, None]
    shift = (wanted - given).flatten()
    return (bias.detach().cpu().double() + shift).float()


def _solve(
    layer: nn.Module,
    weight: Tensor,
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[Matrix, Scales]:
    gram, shared = statistics.gram, axis is None
    target = target_weight(layer, weight, statistics)
    codes, scale = gptq(target, gram, int_format, rounding, shared=shared)
    return improved(target, gram, codes, scale, int_format, rounding, shared=shared)


def improved(
    target: Matrix,
    gram: Gram,
    codes: Matrix,
    scale: Scales,
    int_format: IntFormat,
    rounding: Rounding,
    *,
    shared: bool,
    sweeps: int = SWEEPS,
) -> tuple[Matrix, Scales]:
    """Codes and scales after sweeps over all codes, each moved to where the error is least.

    Args:
        target: the matrices to approach.
        gram: second moments of the inputs.
        codes, scale: to begin with; no row ends with a larger error than theirs.
        int_format: the codes that there are.
        rounding: what becomes of a value in the middle between two codes.
        shared: one scale for everything, instead of one a row.
        sweeps: no more than so many.
    """

    def swept(codes: Matrix, scale: Scales) -> Matrix:
        return sweep(target, gram, codes, scale, int_format, rounding)

    return in_turn(target, gram, codes, scale, swept, _itself, shared=shared, sweeps=sweeps)


def in_turn(
    target: Matrix,
    gram: Gram,
    parts: Float[Tensor, "*parts groups rows k"],
    scale: Scales,
    swept: Callable[[Tensor, Scales], Tensor],
    codes_of: Callable[[Tensor], Matrix],
    *,
    shared: bool,
    sweeps: int,
) -> tuple[Float[Tensor, "*parts groups rows k"], Scales]:
    """Scales refitted and codes swept in turn, while that lessens the error of any row.

    Args:
        target, gram, scale, shared, sweeps: as ``improved``'s.
        parts: what codes are put together from, such as their digits; or the codes.
        swept: the next parts, from the last ones and the scale that was refitted to them.
        codes_of: the codes of parts.
    """
    error = output_error(target, codes_of(parts) * scale[:, :, None], gram, shared=shared)
    for _ in range(sweeps):
        new_scale = refitted(target, codes_of(parts), scale, gram, shared=shared)
        new_parts = swept(parts, new_scale)
        new_weight = codes_of(new_parts) * new_scale[:, :, None]
        new_error = output_error(target, new_weight, gram, shared=shared)
        better = new_error < error
        if not bool(better.any()):
            break
        parts = torch.where(better[:, :, None], new_parts, parts)
        scale = torch.where(better, new_scale, scale)
        error = torch.where(better, new_error, error)
    return parts, scale


def _itself(codes: Tensor) -> Tensor:
    return codes


def target_weight(layer: nn.Module, weight: Tensor, statistics: LayerStatistics) -> Matrix:
    """The weight whose outputs on the quantized network's inputs are nearest to the float ones."""
    gram = statistics.gram
    steady = damped(gram)
    # Damping pulls towards the weight itself, not towards zero.
    pulled = as_matrix(layer, weight.double()) @ (statistics.cross + steady - gram)
    return torch.linalg.solve(steady, pulled.mT).mT


def sweep(
    target: Matrix,
    gram: Gram,
    codes: Matrix,
    scale: Scales,
    int_format: IntFormat,
    rounding: Rounding,
) -> Matrix:
    """Each code of a row in turn, moved to where the row's error is least; as ``improved``'s."""
    # As GPTQ's: columns in one piece each, and what is far is told of a block at once. All is in
    # codes: how far each column is from its best, and how far another's step moves that.
    # Inputs that are always zero have no curvature, and their codes no effect.
    curvature = gram.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(torch.float32).tiny)
    pull = gram / curvature[:, :, None]
    away = pull @ (target / scale[:, :, None] - codes).mT
    codes = codes.mT.contiguous()
    for start in range(0, codes.shape[1], BLOCK):
        end = start + BLOCK
        near, block = away[:, start:end], pull[:, start:end, start:end]
        steps = torch.empty_like(near)
        for column in range(near.shape[1]):
            code = codes[:, start + column]
            moved = round_tensor(code + near[:, column], rounding)
            moved = moved.clamp(int_format.qmin, int_format.qmax)
            torch.sub(moved, code, out=steps[:, column])
            near[:, column + 1 :] -= block[:, column + 1 :, column, None] * steps[:, None, column]
            codes[:, start + column] = moved
        away[:, end:] -= pull[:, end:, start:end] @ steps
    return codes.mT


def refitted(target: Matrix, codes: Matrix, scale: Scales, gram: Gram, *, shared: bool) -> Scales:
    """The scales of least error for these codes; the given one where there is none."""
    seen = codes @ gram
    numerator, denominator = (seen * target).sum(dim=2), (seen * codes).sum(dim=2)
    if shared:
        numerator, denominator = (v.sum().expand_as(v) for v in (numerator, denominator))
    fitted = (numerator / denominator).float().double()
    sound = (denominator > 0) & (fitted > torch.finfo(torch.float32).tiny)
    return torch.where(sound, fitted, scale)
