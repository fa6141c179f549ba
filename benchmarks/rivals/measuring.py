"""One measure for all: a toolkit's weights in our float network, or its network on our pictures."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from quantisp.cfa import mosaic
from quantisp.data import read_picture
from quantisp.evaluation import StudyPicture
from quantisp.evaluation.measure import measure
from quantisp.inference import prepare, restore
from quantisp.metrics import psnr_db
from quantisp.models import DePhaseNet
from quantisp.quantization.layers import find_layers

from .grid import distinct_levels, even_levels
from .task import Outcome, Weights


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Means over the pictures, as in a study."""

    float_psnr_db: float
    psnr_db: float
    drop_db: float
    psnr_to_float_db: float | None
    worst_image_drop_db: float

    def to_dict(self) -> dict[str, float | None]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What the weights are, counted.

    Args:
        layers: with weights on a grid of their width.
        float_layers: of the network that the toolkit left alone.
        off_grid: that it gave weights which lie on no even grid of at most 2^bits levels a channel.
        levels: the most different values in an output channel.
        even_levels: of the coarsest even grid of the worst channel.
    """

    layers: int
    float_layers: tuple[str, ...]
    off_grid: tuple[str, ...]
    levels: int
    even_levels: int


def with_weights(network: DePhaseNet, weights: Weights) -> nn.Module:
    """A copy of the float network with a toolkit's weights and biases.

    Raises:
        ValueError: a layer has another shape here, or is not in the network.
    """
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for name, (weight, bias) in weights.items():
            layer = copied.get_submodule(name)
            for parameter, value in (("weight", weight), ("bias", bias)):
                if value is None:
                    continue
                own = layer.get_parameter(parameter)
                if own.shape != value.shape:
                    found, expected = tuple(value.shape), tuple(own.shape)
                    raise ValueError(f"{name}.{parameter} is {found}, expected {expected}")
                own.copy_(value)
    return copied


def grid_of(network: DePhaseNet, outcome: Outcome, weight_bits: int) -> Grid:
    """Count the values of each channel.

    Args:
        network: the float one, whose layers ought to be quantized.
        outcome: of a toolkit.
        weight_bits: that were asked for, where the toolkit does not say otherwise.
    """
    widths = outcome.bits or dict.fromkeys(outcome.weights, weight_bits)
    weights = {name: weight for name, (weight, _) in outcome.weights.items()}
    levels = {name: distinct_levels(weight) for name, weight in weights.items()}
    even = {name: even_levels(weight, 2 ** widths[name]) for name, weight in weights.items()}
    off_grid = tuple(name for name, found in even.items() if found > 2 ** widths[name])
    return Grid(
        layers=len(weights) - len(off_grid),
        float_layers=tuple(name for name in find_layers(network) if name not in weights),
        off_grid=off_grid,
        levels=max(levels.values()),
        even_levels=max(even.values()),
    )


def quality_of(
    network: nn.Module, reference: DePhaseNet, pictures: Sequence[StudyPicture]
) -> Quality:
    """Measure a quantized network against the float one.

    Args:
        network: maps a mosaic to RGB; changed in its layout alone.
        reference: the float network.
        pictures: at least one.
    """
    device = torch.device("cpu")
    network, reference = prepare(network, device), prepare(copy.deepcopy(reference), device)
    floats: list[float] = []
    found: list[float] = []
    to_float: list[float] = []
    for picture in pictures:
        truth = read_picture(picture.path).tensor()
        sampled = mosaic(truth, reference.pattern)
        before = restore(reference, sampled)
        measured = measure(restore(network, sampled), truth, before.clamp(0.0, 1.0))
        floats.append(measure(before, truth).psnr_db)
        found.append(measured.psnr_db)
        if measured.mse_to_float > 0.0:
            to_float.append(psnr_db(measured.mse_to_float))
    drops = [before - after for before, after in zip(floats, found, strict=True)]
    return Quality(
        float_psnr_db=statistics.fmean(floats),
        psnr_db=statistics.fmean(found),
        drop_db=statistics.fmean(drops),
        psnr_to_float_db=statistics.fmean(to_float) if to_float else None,
        worst_image_drop_db=max(drops),
    )
