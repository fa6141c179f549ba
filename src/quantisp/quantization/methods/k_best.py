"""K-best: rounding as the search for the nearest point of a lattice, with several candidates kept.

With the Cholesky factor R of the inputs' second moments (R^T R = H) the error of a row's outputs is
|R (w - s q)|^2, a sum over columns in which each term depends on the codes q of that column and of
those before it alone. Rounding column after column is Babai's method, which GPTQ is; keeping the K
best of all beginnings at each column is the K-best decoder of multi-antenna radio. Columns that the
others explain best come last, where little is left to go wrong (sorted QR decomposition). From
there a tabu search goes on, code by code, and does not end where a descent would: the best move is
made even if it makes things worse, and not taken back for some moves. That is done for several
scales, of which each row keeps its best. QuantEase's moves, which refit the scale, are the end.

Sources: Guo and Nilsson, "Algorithm and implementation of the K-best sphere decoding for MIMO
detection", IEEE JSAC 24(3), 2006; Wübben et al., "Efficient algorithm for decoding layered
space-time codes", Electronics Letters 37(22), 2001 (the order); Srinidhi, Datta, Chockalingam and
Rajan, "Layered tabu search algorithm for large-MIMO detection and a lower bound on ML performance",
IEEE Trans. Communications 59(11), 2011 (tabu search); Chen et al., "The geometry of LLM
quantization: GPTQ as Babai's nearest plane algorithm", 2025. What is ours is their use together.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.gptq import Gram, Matrix, Scales, as_weight, gptq, output_error
from quantisp.quantization.methods.quantease import (
    corrected_bias,
    improved,
    target_weight,
    without_means,
)
from quantisp.quantization.rounding import Rounding
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["round_by_k_best", "round_by_k_best_with_bias"]

CANDIDATES = 64
# Scales that are tried, times GPTQ's best.
FACTORS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
DAMPING = 1e-5
# Moves of the tabu search at each scale, and at the best.
MOVES, LAST_MOVES = 300, 1000
# So many moves, and up to as many more, a code may not be moved again.
TENURE = 5
# In moves, what rounding has left of the sums is computed anew.
RENEWED = 256


def round_by_k_best(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, None]:
    """Quantize one weight; the arguments are those of ``CalibratedMethod``. The bias stays.

    Time grows with the square of the columns: a layer of 400 inputs takes seconds.
    """
    codes, scale = _solve(layer, weight, int_format, rounding, axis, statistics)
    return as_weight(layer, weight, codes, scale, axis), None


def round_by_k_best_with_bias(
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


def _solve(
    layer: nn.Module,
    weight: Tensor,
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[Matrix, Scales]:
    """Codes and scales, in float64."""
    gram, shared = statistics.gram, axis is None
    target = target_weight(layer, weight, statistics)
    codes, scale = gptq(target, gram, int_format, rounding, shared=shared)
    start = scale
    error = output_error(target, codes * scale[:, :, None], gram, shared=shared)
    for factor in FACTORS:
        tried = (factor * start).float().double()
        found = _nearest(target, gram, tried, int_format)
        found = _wandered(target, gram, found, tried, int_format, MOVES)
        new_error = output_error(target, found * tried[:, :, None], gram, shared=shared)
        better = new_error < error
        codes = torch.where(better[:, :, None], found, codes)
        scale = torch.where(better, tried, scale)
        error = torch.where(better, new_error, error)
    codes, scale = improved(target, gram, codes, scale, int_format, rounding, shared=shared)
    codes = _wandered(target, gram, codes, scale, int_format, LAST_MOVES)
    return improved(target, gram, codes, scale, int_format, rounding, shared=shared)


def _wandered(
    target: Matrix, gram: Gram, codes: Matrix, scale: Scales, int_format: IntFormat, moves: int
) -> Matrix:
    """The best codes on a tabu search's way; no row's error grows."""
    groups = zip(target, gram, codes, scale, strict=True)
    found = torch.stack([_TabuSearch(*group, int_format).best(moves) for group in groups])
    new_error, error = (
        output_error(target, tried * scale[:, :, None], gram) for tried in (found, codes)
    )
    return torch.where((new_error < error)[:, :, None], found, codes)


class _TabuSearch:
    """Rows of codes, each of which makes its best move, over and over.

    Args:
        target: (rows, k), to approach.
        gram: second moments of the inputs.
        codes, scale: to begin with.
        int_format: the codes that there are.
    """

    def __init__(
        self, target: Tensor, gram: Tensor, codes: Tensor, scale: Tensor, int_format: IntFormat
    ) -> None:
        # In units of a code, and float32: whether it helped is seen in float64 by the caller.
        self._target = (target / scale[:, None]).float()
        self._gram = (gram / gram.diagonal().mean()).float()
        self._codes, self._format = codes.float(), int_format
        self._draw = torch.Generator().manual_seed(0)

    def best(self, moves: int) -> Tensor:
        """The codes of least error on the way."""
        rows = torch.arange(len(self._codes))
        price = self._gram.diagonal()
        free_from = torch.zeros_like(self._codes, dtype=torch.int32)
        codes, found = self._codes.clone(), self._codes.clone()
        pull, cost = self._sums(codes)
        least = cost
        for move in range(moves):
            if move % RENEWED == RENEWED - 1:
                pull, cost = self._sums(codes)
            step = torch.where(pull < 0.0, -1.0, 1.0)
            change = price - 2.0 * pull.abs()
            moved = codes + step
            outside = (moved < self._format.qmin) | (moved > self._format.qmax)
            # What would be better than anything before may be taken back at once.
            known = (free_from > move) & (cost[:, None] + change >= least[:, None])
            change, column = change.masked_fill_(outside | known, torch.inf).min(dim=1)
            # A row that has no move left stays.
            taken = torch.where(torch.isfinite(change), step[rows, column], 0.0)
            codes[rows, column] += taken
            pull -= taken[:, None] * self._gram[column]
            cost = cost + torch.where(taken == 0.0, 0.0, change)
            waiting = torch.randint(TENURE + 1, (len(rows),), generator=self._draw)
            free_from[rows, column] = (move + 1 + TENURE + waiting).int()
            better = cost < least
            least = torch.where(better, cost, least)
            found[better] = codes[better]
        return found.double()

    def _sums(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How much each code is wanted to be larger, and the error of each row."""
        error = self._target - codes
        pull = error @ self._gram
        return pull, (error * pull).sum(dim=1)


def _nearest(target: Matrix, gram: Gram, scale: Scales, int_format: IntFormat) -> Matrix:
    return torch.stack(
        [
            _search(rows, _damped(moments), scales, int_format)
            for rows, moments, scales in zip(target, gram, scale, strict=True)
        ]
    )


def _damped(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """With a little more on the diagonal; with more than that where few inputs need it."""
    amount = DAMPING * float(gram.diagonal().mean()) + torch.finfo(torch.float32).tiny
    unit = torch.eye(len(gram), dtype=gram.dtype)
    while int(torch.linalg.cholesky_ex(gram + amount * unit).info):
        amount *= 10.0
    return gram + amount * unit


def _search(
    rows: Float[Tensor, "rows k"],
    gram: Float[Tensor, "k k"],
    scale: Float[Tensor, " rows"],
    int_format: IntFormat,
) -> Float[Tensor, "rows k"]:
    """The codes of all rows: the best of the K beginnings that are kept at each column."""
    order = sorted_columns(gram)
    factor = torch.linalg.cholesky(gram[order][:, order], upper=True)
    # In units of a code; float32 tells beginnings apart, and takes half the time.
    wanted = (rows[:, order] / scale[:, None]).float()
    factor = (factor / factor.diagonal().max()).float()
    count = rows.shape[1]
    # How far each beginning is from what is wanted, at the columns that it has.
    apart = wanted.new_zeros(len(rows), 1, 0)
    cost = wanted.new_zeros(len(rows), 1)
    for column in range(count - 1, -1, -1):
        pivot = factor[column, column]
        ideal = wanted[:, column, None] + (apart @ factor[column, column + 1 :]) / pivot
        nearest = ideal.round()
        second = nearest + torch.where(ideal >= nearest, 1.0, -1.0)
        choices = torch.stack([nearest, second], 2).clamp(int_format.qmin, int_format.qmax)
        costs = cost[:, :, None] + (pivot * (ideal[:, :, None] - choices)) ** 2
        same = choices[:, :, 1] == choices[:, :, 0]
        costs[:, :, 1] = torch.where(same, torch.inf, costs[:, :, 1])
        kept = min(CANDIDATES, costs.shape[1] * 2)
        cost, index = costs.flatten(1).topk(kept, dim=1, largest=False)
        parents = (index // 2)[:, :, None].expand(-1, -1, apart.shape[2])
        newest = wanted[:, column, None] - choices.flatten(1).gather(1, index)
        apart = torch.cat([newest[:, :, None], apart.gather(1, parents)], dim=2)
    found = torch.empty_like(rows)
    found[:, order] = (wanted - apart[:, 0]).round().double()
    return found


def sorted_columns(gram: Float[Tensor, "k k"]) -> Int[Tensor, " k"]:
    """Columns in the order of the least that those before leave of them: greedy, as in sorted QR.

    Args:
        gram: positive definite.
    """
    left = torch.linalg.cholesky(gram, upper=True).clone()
    free = torch.ones(len(gram), dtype=torch.bool)
    order: list[int] = []
    for _ in range(len(gram)):
        power = torch.where(free, left.square().sum(dim=0), torch.inf)
        chosen = int(power.argmin())
        order.append(chosen)
        free[chosen] = False
        size = power[chosen].clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        direction = left[:, chosen] / size
        left -= direction[:, None] * (direction @ left)[None]
    return torch.tensor(order)
