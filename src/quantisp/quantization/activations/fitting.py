"""A layer's weights, changed so that its sums fit an accumulator; while activations are calibrated.

By then the codes of the layer's input are known: their range, and on the calibration inputs their
moments. What follows is calibrated with the changed weights, and the next layer's inputs are those
that they give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization.accumulator_fit import MULTIPLES, POWERS, FittedRows, Sums, fit_rows
from quantisp.quantization.activations.weight_steps import WeightStep
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.graph.nodes import ConvTranspose, Linear, Node
from quantisp.quantization.matrices import as_matrix, from_matrix, input_columns
from quantisp.quantization.methods.gptq import damped

__all__ = ["FittedWeight", "fit_weight"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedWeight:
    """A weight whose sums fit.

    Args:
        weight: its codes and scales.
        bias_shift: what the bias of each channel gets to make up for the mean.
        channels: how many had to change.
        loss: the squared error that it makes, over the variance of the layer's outputs.
    """

    weight: QuantizedWeight
    bias_shift: Float[Tensor, " channels"]
    channels: int
    loss: float


def fit_weight(
    step: WeightStep,
    weight: QuantizedWeight,
    inputs: Sequence[Tensor],
    *,
    ends: tuple[int, int],
    bits: int,
    int_format: IntFormat,
    corrected: bool,
) -> FittedWeight | None:
    """The weight of a layer, with sums of so many bits; None where they have no more already.

    Args:
        step: the layer, with its bias as it is to be.
        weight: its codes and scale.
        inputs: the codes that it takes, for each calibration input.
        ends: the least and the greatest code that it may take.
        bits: of the accumulator.
        int_format: the codes that a weight may have.
        corrected: the bias may move to keep the mean of each channel.

    Raises:
        SettingError: no weights fit.
    """
    layer = _stand_in(step.node, weight.codes)
    matrix = as_matrix(layer, weight.codes.double())
    groups, rows, products = matrix.shape
    scale = step.scales()[0].expand(groups * rows)
    bias = (step.real_bias / scale).expand(groups * rows).reshape(groups, rows)
    unknown = Sums(
        gram=torch.zeros(products, products, dtype=torch.float64),
        mean=torch.zeros(products, dtype=torch.float64),
        centre=bias[0],
        low=min(ends[0], 0),
        high=max(ends[1], 0),
        bits=bits,
    )
    as_is = [replace(unknown, centre=bias[g]).fits(matrix[g], 1.0) for g in range(groups)]
    if all(bool(fits.all()) for fits in as_is):
        return None
    gram, mean = _moments(layer, inputs)
    kept = mean if corrected else torch.zeros_like(mean)
    # Inputs that the crops leave at zero may move in other pictures.
    seen = damped(gram - kept[:, :, None] * kept[:, None, :])
    sums = [
        replace(
            unknown,
            gram=seen[g],
            mean=kept[g],
            centre=bias[g] + matrix[g] @ kept[g],
        )
        for g in range(groups)
    ]
    fitted = _fitted(
        step.node,
        matrix,
        sums,
        int_format,
        shared=weight.scale.ndim == 0,
        power_of_two=step.settings.power_of_two,
    )
    codes = torch.stack([f.codes for f in fitted])
    times = torch.stack([f.times for f in fitted])
    lost = matrix - codes * times[:, :, None]
    spread = gram - mean[:, :, None] * mean[:, None, :]
    variance = ((matrix @ spread) * matrix).sum(2).flatten() * scale.square()
    error = torch.stack([f.error for f in fitted]).flatten() * scale.square()
    return FittedWeight(
        weight=replace(
            weight,
            codes=from_matrix(layer, codes, weight.codes).to(torch.int32),
            scale=weight.scale * _like(times.flatten(), weight.scale),
        ),
        bias_shift=(lost @ kept[:, :, None]).flatten() * scale,
        channels=int((lost != 0.0).any(dim=2).sum()),
        loss=float(error.sum() / variance.sum().clamp(min=torch.finfo(torch.float32).tiny)),
    )


def _fitted(
    node: Node,
    matrix: Tensor,
    sums: Sequence[Sums],
    int_format: IntFormat,
    *,
    shared: bool,
    power_of_two: bool,
) -> list[FittedRows]:
    limits = (int_format.qmin, int_format.qmax)

    def fit(multiples: Sequence[float]) -> list[FittedRows]:
        found = [
            fit_rows(rows, group, limits, shared=shared, multiples=multiples)
            for rows, group in zip(matrix, sums, strict=True)
        ]
        if None in found:
            raise SettingError(
                f"expected accumulators that hold at least the mean of each sum, those of layer "
                f"{node.layer!r} at {node.where} do not in {sums[0].bits} bits: give them more "
                "bits, or its input fewer"
            )
        return [rows for rows in found if rows is not None]

    found = fit(POWERS if power_of_two else MULTIPLES)
    multiples = {float(rows.times[0]) for rows in found}
    # Groups that share a scale share the coarsest that one of them needs.
    return fit([max(multiples)]) if shared and len(multiples) > 1 else found


def _moments(
    layer: nn.Module, inputs: Sequence[Tensor]
) -> tuple[Float[Tensor, "groups k k"], Float[Tensor, "groups k"]]:
    gram, total, count = torch.zeros(()), torch.zeros(()), 0
    for x in inputs:
        columns = input_columns(layer, x.float())
        gram = gram + (columns @ columns.mT).double()
        total = total + columns.double().sum(2)
        count += columns.shape[2]
    return gram / count, total / count


def _like(times: Float[Tensor, " channels"], scale: Tensor) -> Tensor:
    return times[0].to(scale) if scale.ndim == 0 else times.to(scale)


def _stand_in(node: Node, weight: Tensor) -> nn.Module:
    """A module of the node's shape, which says how inputs become columns."""
    operation: Any = node.operation
    if isinstance(operation, Linear):
        return nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    settings: dict[str, Any] = {
        "stride": operation.stride,
        "padding": operation.padding,
        "dilation": operation.dilation,
        "groups": operation.groups,
        "device": "meta",
    }
    kernel, groups = (weight.shape[2], weight.shape[3]), operation.groups
    if isinstance(operation, ConvTranspose):
        settings["output_padding"] = operation.output_padding
        return nn.ConvTranspose2d(weight.shape[0], weight.shape[1] * groups, kernel, **settings)
    return nn.Conv2d(weight.shape[1] * groups, weight.shape[0], kernel, **settings)
