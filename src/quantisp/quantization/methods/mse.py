"""The scale of least squared error: clipping a few weights lets all others have finer steps.

Sources: Sung, Shin, Hwang, "Resiliency of deep neural networks under quantization", arXiv
1511.06488 (the step of least squared error, by alternating two minimisations, after Lloyd); and
Nagel et al., "A white paper on neural network quantization", arXiv 2106.08295, section 3.1 (its
"MSE based" range setting, by a search).

Of the weights w of one slice it minimises sum (w - s q)^2 over the scale s and the codes q:

* given s, the nearest code is the best one for each weight;
* given q, the best scale is s = <w, q> / <q, q>, which leaves <w, w> - <w, q>^2 / <q, q>.

The error has many local minima, so alternating alone ends near its start. Here the second formula
judges every scale of a wide grid, then of two finer ones about the best, and alternation ends it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from quantisp.quantization.affine import QuantizedWeight, dequantize_tensor, quantize_tensor
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.methods.rtn import round_to_nearest
from quantisp.quantization.rounding import Rounding, round_tensor

__all__ = [
    "as_rows",
    "fitted_scale",
    "minimise_squared_error",
    "of_shape",
    "squared_error",
    "where_better",
]

# Times the scale of the absolute maximum, then times the best so far. Above it, too: weights that
# lie on a coarser grid are hit by fewer codes.
GRIDS = (
    tuple(2.0 ** (step / 16) for step in range(-128, 17)),
    tuple(2.0 ** (step / 128) for step in range(-32, 33)),
    tuple(2.0 ** (step / 1024) for step in range(-32, 33)),
)
REFITS = 20


def minimise_squared_error(
    weight: Float[Tensor, "*shape"], int_format: IntFormat, rounding: Rounding, axis: int | None
) -> QuantizedWeight:
    """Quantize one weight; the arguments are those of ``LayerMethod``.

    No slice is farther from its weights than ``round_to_nearest`` leaves it.

    >>> import torch
    >>> weight = torch.tensor([[0.2, -0.2, 0.4, 0.2, -0.4, 0.7]])
    >>> found = minimise_squared_error(weight, IntFormat(bits=3), "half_even", 0)
    >>> found.codes.tolist(), round(found.scale.item(), 4)
    ([[1, -1, 2, 1, -2, 3]], 0.215)

    Raises:
        ModelError: a weight is NaN or infinite.
    """
    start = round_to_nearest(weight, int_format, rounding, axis)
    rows, codes, scale = as_rows(weight, axis), as_rows(start.codes, axis), start.scale.reshape(-1)
    tried = _searched(rows.double(), scale.double(), int_format, rounding)
    for _ in range(REFITS):
        new_codes = quantize_tensor(rows, tried, int_format, rounding, axis=0)
        codes, scale = where_better(rows, (new_codes, tried), (codes, scale))
        refitted = fitted_scale(rows, new_codes, tried)
        codes, scale = where_better(rows, (new_codes, refitted), (codes, scale))
        if torch.equal(refitted, tried):
            break
        tried = refitted
    return QuantizedWeight(
        codes=of_shape(codes, weight, axis), scale=scale.reshape(start.scale.shape), axis=axis
    )


def as_rows(tensor: Tensor, axis: int | None) -> Tensor:
    """A matrix with one row for each scale."""
    return tensor.reshape(1, -1) if axis is None else tensor.transpose(0, axis).flatten(1)


def of_shape(rows: Tensor, like: Tensor, axis: int | None) -> Tensor:
    """Undo :func:`as_rows`."""
    if axis is None:
        return rows.reshape(like.shape)
    return rows.reshape(like.transpose(0, axis).shape).transpose(0, axis).contiguous()


def squared_error(
    rows: Float[Tensor, "rows k"], codes: Int[Tensor, "rows k"], scale: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Of the very weights that the network would use, summed in float64."""
    return (dequantize_tensor(codes, scale, axis=0).double() - rows.double()).square().sum(dim=1)


def fitted_scale(
    rows: Float[Tensor, "rows k"], codes: Int[Tensor, "rows k"], scale: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """The best float32 scale of these codes, or the given one where there is none."""
    codes64 = codes.double()
    seen, power = (rows.double() * codes64).sum(dim=1), codes64.square().sum(dim=1)
    fitted = (seen / power.clamp(min=1.0)).to(scale.dtype)
    sound = torch.isfinite(fitted) & (fitted >= torch.finfo(scale.dtype).tiny)
    return torch.where(sound, fitted, scale)


def where_better(
    rows: Float[Tensor, "rows k"], new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]
) -> tuple[Int[Tensor, "rows k"], Float[Tensor, " rows"]]:
    """Codes and scale of each row: the new ones where their error is less, else the old ones."""
    # An overflow gives NaN or infinity, which are not less.
    better = squared_error(rows, *new) < squared_error(rows, *old)
    return torch.where(better[:, None], new[0], old[0]), torch.where(better, new[1], old[1])


def _searched(
    rows: Tensor, start: Tensor, int_format: IntFormat, rounding: Rounding
) -> Float[Tensor, " rows"]:
    """The best scale of the grids, as float32; all of it in float64."""
    tiny = torch.finfo(torch.float32).tiny
    best, most = start, torch.zeros_like(start)
    for grid in GRIDS:
        centre = best
        for factor in grid:
            tried = (centre * factor).clamp(min=tiny)
            quotients = round_tensor(rows / tried[:, None], rounding)
            codes = quotients.clamp(int_format.qmin, int_format.qmax)
            seen, power = (rows * codes).sum(dim=1), codes.square().sum(dim=1).clamp(min=1.0)
            explained = seen.square() / power
            better = explained > most
            best = torch.where(better, seen / power, best)
            most = torch.where(better, explained, most)
    return best.float().clamp(min=tiny)
