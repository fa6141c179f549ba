"""YAQA: codes are chosen by what the network's output feels of a layer's inputs and its outputs.

GPTQ and QuantEase approach the outputs of a layer as if each counted alike. Here the error D of a
weight costs tr(G D H D^T): H are the moments of the inputs, G says which errors of the outputs are
felt, and which cancel each other on the way (:mod:`quantisp.quantization.curvature`). Each code in
turn is rounded, and those after it make up for its error, along its row and along its column: with
unit triangular factors of H and G the error of a code is a sum over codes before it alone. Codes
on a diagonal do not wait for each other, so a matrix takes as many steps as it has rows and
columns together.

Source: Tseng, Sun and De Sa, "Model-preserving adaptive rounding", arXiv 2505.22988, section 3.2.
What is ours: the start from QuantEase, with its target and scales, which are refitted by least
squares between rounds; the bias, which makes up for errors of the mean; the diagonals.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.gptq import BLOCK, as_weight, damped, gptq
from quantisp.quantization.methods.quantease import (
    corrected_bias,
    improved,
    target_weight,
    without_means,
)
from quantisp.quantization.rounding import Rounding, round_tensor
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["round_by_yaqa"]

# Added to the diagonal of G, as a share of its mean: the model is a rough one.
DAMPING = 0.1
# Codes, and scales that fit them.
ROUNDS = 2
# Of QuantEase, to begin with: more change hardly anything.
SWEEPS = 2

Rows = Float[Tensor, "rows k"]
Gram = Float[Tensor, "k k"]
Curvature = Float[Tensor, "rows rows"]
Scale = Float[Tensor, " rows"]


def round_by_yaqa(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, Float[Tensor, " channels"] | None]:
    """Quantize one weight, and correct the bias, where there is one.

    The arguments are those of ``CalibratedMethod``; the statistics must have a curvature.

    Raises:
        RunError: they have none.
    """
    if statistics.curvature is None:
        raise RunError("expected the curvature of the layer's outputs, found statistics without it")
    seen = without_means(layer, statistics)
    shared = axis is None
    target = target_weight(layer, weight, seen)
    codes, scale = gptq(target, seen.gram, int_format, rounding, shared=shared)
    codes, scale = improved(
        target, seen.gram, codes, scale, int_format, rounding, shared=shared, sweeps=SWEEPS
    )
    curvature = damped(statistics.curvature, DAMPING)
    groups = zip(target, damped(seen.gram), curvature, codes, scale, strict=True)
    found = [_solve(*group, int_format, rounding, shared=shared) for group in groups]
    codes, scale = (torch.stack(values) for values in zip(*found, strict=True))
    rounded = as_weight(layer, weight, codes, scale, axis)
    return rounded, corrected_bias(layer, weight, rounded, statistics)


def _solve(
    target: Rows,
    gram: Gram,
    curvature: Curvature,
    codes: Rows,
    scale: Scale,
    int_format: IntFormat,
    rounding: Rounding,
    *,
    shared: bool,
) -> tuple[Rows, Scale]:
    """Codes and scales whose cost is no larger than of those to begin with."""
    best = _cost(target - codes * scale[:, None], gram, curvature)
    tried = scale
    for _ in range(ROUNDS):
        new_codes = _rounded(target, gram, curvature, tried, int_format, rounding)
        tried = _refitted(target, gram, curvature, new_codes, tried, shared=shared)
        cost = _cost(target - new_codes * tried[:, None], gram, curvature)
        if cost >= best:
            break
        best, codes, scale = cost, new_codes, tried
    return codes, scale


def _cost(error: Rows, gram: Gram, curvature: Curvature) -> float:
    return float(((curvature @ error @ gram) * error).sum())


def _rounded(
    target: Rows,
    gram: Gram,
    curvature: Curvature,
    scale: Scale,
    int_format: IntFormat,
    rounding: Rounding,
) -> Rows:
    """The codes, one diagonal after the other of each block of columns."""
    # What weighs most comes first, while much is left to make up for it.
    columns = torch.argsort(gram.diagonal(), descending=True)
    rows = torch.argsort(curvature.diagonal() * scale**2, descending=True)
    along = _unit_factor(gram[columns][:, columns]).mT.contiguous()
    across = _unit_factor(curvature[rows][:, rows])
    wanted, step = target[rows][:, columns], scale[rows]
    height, width = wanted.shape
    codes = torch.zeros_like(wanted)
    # What each row's codes so far leave to each column.
    left = torch.zeros_like(wanted)
    for start in range(0, width, BLOCK):
        block = slice(start, min(start + BLOCK, width))
        tile = _Tile(wanted[:, block], left[:, block], along[block, block])
        for offset in range(tile.width - 1, -height, -1):
            tile.round_diagonal(offset, across, step, int_format, rounding)
        codes[:, block] = tile.codes.flip(1)
        left[:, block.stop :] += tile.errors.flip(1) @ along[block, block.stop :]
    ordered = torch.empty_like(codes)
    ordered[rows] = torch.empty_like(codes).scatter_(1, columns.expand_as(codes), codes)
    return ordered


class _Tile:
    """A block of columns in reverse order: what is rounded together is a diagonal then."""

    def __init__(self, wanted: Tensor, left: Tensor, along: Tensor) -> None:
        self._wanted, self._left, self._along = wanted.flip(1), left.flip(1), along.flip(0, 1)
        # What is left to a column, with the error of its own code.
        self._whole = torch.zeros_like(wanted)
        self.codes, self.errors = torch.zeros_like(wanted), torch.zeros_like(wanted)
        self.height, self.width = wanted.shape

    def round_diagonal(
        self,
        offset: int,
        across: Curvature,
        step: Scale,
        int_format: IntFormat,
        rounding: Rounding,
    ) -> None:
        """Where the column is the row and so many more; those of larger offsets come before."""
        first, last = max(0, -offset), min(self.height - 1, self.width - 1 - offset)
        rows, columns = slice(first, last + 1), slice(first + offset, last + offset + 1)
        wanted, left = self._wanted.diagonal(offset), self._left.diagonal(offset)
        above = (across[rows, :last] * self._whole[:last, columns].mT).sum(dim=1)
        found = round_tensor((wanted + left + above) / step[rows], rounding)
        found = found.clamp(int_format.qmin, int_format.qmax)
        error = wanted - found * step[rows]
        self.codes.diagonal(offset).copy_(found)
        self.errors.diagonal(offset).copy_(error)
        torch.add(error, left, out=self._whole.diagonal(offset))
        self._left[rows] += error[:, None] * self._along[columns]


def _unit_factor(moments: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Strictly lower L with ``(I + L)^T D (I + L)`` the moments, D diagonal.

    So each error adds to its own term, and to those of errors after it.
    """
    upper = torch.linalg.cholesky(moments.flip(0, 1)).flip(0, 1)
    lower = upper.mT
    return (lower / lower.diagonal()[:, None]).tril(-1)


def _refitted(
    target: Rows, gram: Gram, curvature: Curvature, codes: Rows, scale: Scale, *, shared: bool
) -> Scale:
    """The scales of least cost; the old ones where those are none."""
    seen = codes @ gram
    system, wanted = curvature * (seen @ codes.mT), ((curvature @ target) * seen).sum(dim=1)
    if shared:
        fitted = (wanted.sum() / system.sum()).expand_as(scale)
    else:
        # Rows of zeros alone have no scale.
        used = system.diagonal() > 0
        apart = torch.where(used[:, None] & used, system, torch.eye(len(system), dtype=gram.dtype))
        fitted = torch.linalg.solve(apart, torch.where(used, wanted, scale))
    fitted = fitted.float().double()
    sound = torch.isfinite(fitted) & (fitted > torch.finfo(torch.float32).tiny)
    return torch.where(sound, fitted, scale)
