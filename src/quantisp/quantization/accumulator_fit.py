"""Weights whose sums fit an accumulator whatever the input, at the least error of the outputs.

A sum is bias + q . x, with every x between ``low`` and ``high``. Where the bias makes up for the
mean of what is lost, it follows the codes: bias(q) = c - q . m, with m the mean of x, and c the
mean of the sum, which does not change. So the greatest sum is

    c + sum over q > 0 of q (high - m) + sum over q < 0 of |q| (m - low)

and the least one likewise with the two exchanged and the sign turned round: two budgets, each a
weighted L1 norm of the codes. Among the codes within both, those of least squared error
(q - t) G (q - t), with t the codes that there were and G the second moments of the inputs, are
looked for:

1. Codes shrink towards zero by a price over their own curvature, the least price that meets the
   budgets: the projection of A2Q (there onto an L1 ball, in training), in the metric of G's
   diagonal.
2. Coordinate descent, at a price that falls to nothing, moves each code to where the error is
   least and both budgets hold: errors of different inputs make up for each other. The best codes on
   the way are kept.
3. All of it is tried on scales 1.5, 2, 3, 4 ... times as coarse, too, which is a narrower weight;
   each channel (or the layer, where channels share a scale) gets what errs least.

Sources: Colbert, Pappalardo, Petri-Koenig, "A2Q: Accumulator-aware quantization with guaranteed
overflow avoidance", ICCV 2023; "A2Q+: Improving accumulator-aware weight quantization", ICML 2024
(signs apart, zero-centred); Colbert, Grob, Franco, Zhang, Saab, "Accumulator-aware post-training
quantization", arXiv 2409.17092 (budgets met while errors are corrected).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["MULTIPLES", "POWERS", "FittedRows", "Sums", "fit_rows"]

SWEEPS = 3
POWERS = tuple(float(1 << k) for k in range(12))
MULTIPLES = tuple(times * step for times in POWERS for step in (1.0, 1.5))
# Of the price: by 16 until it is enough, then into halves.
GROWTHS = 30
HALVINGS = 14
# Of the biases' own rounding, on either side; and of scales, in float32.
MARGIN = 1.0
MARGIN_SHARE = 2.0**-21

Rows = Float[Tensor, "rows k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """What the sums of a layer are like, in units of the accumulator.

    Args:
        gram: second moments of the inputs' codes, centred where biases make up for means.
        mean: of the inputs' codes; zeros where biases do not.
        centre: of each row, bias + q . mean with the codes that there were.
        low, high: of the inputs' codes, zero included.
        bits: of the accumulator, signed.
    """

    gram: Float[Tensor, "k k"]
    mean: Float[Tensor, " k"]
    centre: Float[Tensor, " rows"]
    low: int
    high: int
    bits: int

    def of(self, rows: Bool[Tensor, " rows"]) -> Sums:
        """The same of some rows."""
        return replace(self, centre=self.centre[rows])

    def budgets(self, times: float) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """How far sums may go up and down from their means, on scales so many times as coarse."""
        centre, half = self.centre / times, float(1 << (self.bits - 1))
        margin = MARGIN + MARGIN_SHARE * centre.abs()
        return half - 1.0 - margin - centre, half - margin + centre

    @property
    def above(self) -> Float[Tensor, " k"]:
        """How far each input may be above its mean."""
        return (self.high - self.mean).clamp(min=0.0)

    @property
    def below(self) -> Float[Tensor, " k"]:
        """How far each input may be below its mean."""
        return (self.mean - self.low).clamp(min=0.0)

    def reach(self, codes: Rows) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """How far the sums of these codes go up and down from their means."""
        up, down = codes.clamp(min=0.0), (-codes).clamp(min=0.0)
        return up @ self.above + down @ self.below, up @ self.below + down @ self.above

    def fits(self, codes: Rows, times: float) -> Bool[Tensor, " rows"]:
        """Whether no input makes a sum that the accumulator does not hold."""
        return torch.stack(
            [way <= room for way, room in zip(self.reach(codes), self.budgets(times), strict=True)]
        ).all(dim=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedRows:
    """Codes that fit.

    Args:
        codes: whole numbers.
        times: how many times as coarse the scale of each row is.
        error: the squared error of each row's sums, in the old scale's units; infinite where they
            do not fit.
        open: whether another scale may be better.
    """

    codes: Rows
    times: Float[Tensor, " rows"]
    error: Float[Tensor, " rows"]
    open: Bool[Tensor, " rows"]

    @property
    def is_sound(self) -> bool:
        """Whether all rows fit."""
        return bool(torch.isfinite(self.error).all())

    def improved(self, tried: FittedRows, rows: Bool[Tensor, " rows"]) -> FittedRows:
        """With what was tried of some rows, where it errs less."""
        codes, times, error = self.codes.clone(), self.times.clone(), self.error.clone()
        still = torch.zeros_like(self.open)
        wins = tried.error < error[rows]
        still[rows] = (wins & tried.open) | ~torch.isfinite(torch.minimum(error[rows], tried.error))
        codes[rows] = torch.where(wins[:, None], tried.codes, codes[rows])
        times[rows] = torch.where(wins, tried.times, times[rows])
        error[rows] = torch.where(wins, tried.error, error[rows])
        return FittedRows(codes=codes, times=times, error=error, open=still)


def fit_rows(
    target: Rows,
    sums: Sums,
    limits: tuple[int, int],
    *,
    shared: bool,
    multiples: Sequence[float] = MULTIPLES,
) -> FittedRows | None:
    """Codes near the target whose sums fit, or None where even zeros do not.

    Args:
        target: the codes that there were.
        sums: what they are multiplied with, and how wide their sums may be.
        limits: the least and the greatest code of the format.
        shared: all rows have one scale.
        multiples: how many times as coarse a scale may be, in rising order.
    """
    best = _at_scale(target, sums, limits, multiples[0])
    for times in multiples[1:]:
        # A row that a coarser scale does not help is not helped by a still coarser one.
        tried_rows = best.open if not shared else best.open.any().expand(len(target))
        if times > limits[1] or not bool(tried_rows.any()):
            break
        tried = _at_scale(target[tried_rows], sums.of(tried_rows), limits, times)
        if shared and best.is_sound and best.error.sum() <= tried.error.sum():
            break
        best = tried if shared else best.improved(tried, tried_rows)
    return best if best.is_sound else None


def _at_scale(target: Rows, sums: Sums, limits: tuple[int, int], times: float) -> FittedRows:
    wanted = target / times
    plain = wanted.round().clamp(*limits)
    codes, prices = _shrunk(wanted, plain, sums, times)
    # Where nothing has to give way and nothing was rounded there is no error to descend on.
    if not torch.equal(codes, target):
        codes = _descended(wanted, codes, prices, sums, limits, times)
    error = times**2 * _error(codes - wanted, sums.gram)
    error = torch.where(sums.fits(codes, times), error, math.inf)
    return FittedRows(
        codes=codes, times=torch.full_like(error, times), error=error, open=error > 0.0
    )


def _error(apart: Rows, gram: Tensor) -> Float[Tensor, " rows"]:
    return ((apart @ gram) * apart).sum(dim=1).clamp(min=0.0)


def _shrunk(
    wanted: Rows, plain: Rows, sums: Sums, times: float
) -> tuple[Rows, tuple[Tensor, Tensor]]:
    """Codes shrunk by the least prices of both budgets, and those prices, for each row."""
    curvature = sums.gram.diagonal().clamp(min=torch.finfo(torch.float32).tiny)
    prices = [torch.zeros(len(wanted), dtype=wanted.dtype) for _ in range(2)]

    def shrunk() -> Rows:
        up, down = _price_of_codes(sums, prices[0], prices[1])
        by = torch.where(wanted > 0.0, up, down) / curvature
        codes = (wanted.abs() - by).clamp(min=0.0).round().copysign(wanted)
        free = ((prices[0] == 0.0) & (prices[1] == 0.0))[:, None]
        return torch.where(free, plain, torch.minimum(codes.abs(), plain.abs()).copysign(wanted))

    for way, room in enumerate(sums.budgets(times)):

        def fits(way: int = way, room: Tensor = room) -> Tensor:
            return sums.reach(shrunk())[way] <= room

        prices[way] = _least_price(prices, way, fits)
    return shrunk(), (prices[0], prices[1])


def _least_price(
    prices: list[Tensor], way: int, fits: Callable[[], Tensor]
) -> Float[Tensor, " rows"]:
    """By bisection, row by row; zero where the budget is met without."""
    none = torch.zeros_like(prices[way])
    prices[way] = none
    met = fits()
    low, high = none.clone(), torch.full_like(none, 2.0**-20)
    for _ in range(GROWTHS):
        prices[way] = high
        short = ~fits() & ~met
        if not bool(short.any()):
            break
        low, high = torch.where(short, high, low), torch.where(short, 16.0 * high, high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        prices[way] = middle
        enough = fits()
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.where(met, none, high)


def _price_of_codes(
    sums: Sums, upward: Float[Tensor, " rows"], downward: Float[Tensor, " rows"]
) -> tuple[Rows, Rows]:
    """What a step of a positive and of a negative code costs."""
    above, below = sums.above, sums.below
    first = upward[:, None] * above + downward[:, None] * below
    second = upward[:, None] * below + downward[:, None] * above
    return first, second


def _descended(
    wanted: Rows,
    codes: Rows,
    prices: tuple[Tensor, Tensor],
    sums: Sums,
    limits: tuple[int, int],
    times: float,
) -> Rows:
    """Sweeps over the codes of each row, from codes that fit to codes that fit."""
    slope = ((codes - wanted) @ sums.gram).contiguous()
    best, least = codes, ((codes - wanted) * slope).sum(dim=1)
    able = sums.fits(codes, times)
    rooms = sums.budgets(times)
    run = _compiled()
    for sweep in range(SWEEPS):
        share = 1.0 - sweep / (SWEEPS - 1)
        up, down = _price_of_codes(sums, share * prices[0], share * prices[1])
        codes = codes.clone(memory_format=torch.contiguous_format)
        reach = [way.clone() for way in sums.reach(codes)]
        arrays = [codes, slope, sums.gram, sums.above, sums.below, up, down, *reach, *rooms]
        run(*(array.contiguous().numpy() for array in arrays), *limits)
        # The sweep keeps the slope up to date.
        error = ((codes - wanted) * slope).sum(dim=1)
        wins = (error < least) & able & sums.fits(codes, times)
        best, least = torch.where(wins[:, None], codes, best), torch.where(wins, error, least)
    return best


def _sweep(
    codes: Any,
    slope: Any,
    gram: Any,
    above: Any,
    below: Any,
    price_up: Any,
    price_down: Any,
    reach_up: Any,
    reach_down: Any,
    room_up: Any,
    room_down: Any,
    qmin: Any,
    qmax: Any,
) -> None:
    """One pass over all codes, in place; compiled by numba."""
    rows, columns = codes.shape
    for row in range(rows):
        for k in range(columns):
            curvature = gram[k, k]
            if curvature <= 0.0:
                continue
            old = codes[row, k]
            up = reach_up[row] - (old * above[k] if old > 0 else -old * below[k])
            down = reach_down[row] - (old * below[k] if old > 0 else -old * above[k])
            most, least = qmax, qmin
            spare_up, spare_down = room_up[row] - up, room_down[row] - down
            if above[k] > 0.0:
                most = min(most, math.floor(spare_up / above[k]))
                least = max(least, -math.floor(spare_down / above[k]))
            if below[k] > 0.0:
                most = min(most, math.floor(spare_down / below[k]))
                least = max(least, -math.floor(spare_up / below[k]))
            free = old - slope[row, k] / curvature
            if free > 0.0:
                free = max(free - price_up[row, k] / curvature, 0.0)
            else:
                free = min(free + price_down[row, k] / curvature, 0.0)
            new = min(max(math.floor(free + 0.5), least), most)
            if new == old or most < 0 or least > 0:
                continue
            codes[row, k] = new
            reach_up[row] = up + (new * above[k] if new > 0 else -new * below[k])
            reach_down[row] = down + (new * below[k] if new > 0 else -new * above[k])
            for other in range(columns):
                slope[row, other] += (new - old) * gram[k, other]


@cache
def _compiled() -> Callable[..., None]:
    import numba

    # Without what the tests wrap around every function of the package.
    return numba.njit(cache=True, error_model="numpy")(inspect.unwrap(_sweep))
