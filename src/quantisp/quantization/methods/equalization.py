"""Cross-layer equalization: channels between two layers are scaled so that both have equal ranges.

Source: Nagel, van Baalen, Blankevoort, Welling, "Data-free quantization through weight equalization
and bias correction", ICCV 2019, section 4.1. ReLU(s x) = s ReLU(x) for s > 0, so channel i of the
first layer's output may be divided by s_i if the second layer's weights for it are multiplied by
s_i = sqrt(r1_i r2_i) / r2_i, where r are the largest magnitudes. Nothing changes but the ranges.

Which layers follow each other is found by looking: one layer's output, or its ReLU, is the other's
input, value for value, and scaling both leaves the network's output as it is. So no graph needs to
be captured, and a tensor that a third part of the network uses, too, is not touched.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quantisp.quantization.layers import find_layers
from quantisp.quantization.network import NetworkTask, RoundedNetwork
from quantisp.quantization.watching import beside, watch

__all__ = ["Pair", "equalize", "find_pairs", "round_equalized"]

SWEEPS = 20
# Ranges that are equal to this share are equal.
CLOSE = 1e-3
# A channel whose weights are all this small next to the layer's largest carries nothing.
LEAST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two layers, the first of which gives what the second takes, maybe through a ReLU."""

    first: str
    second: str


def round_equalized(task: NetworkTask) -> RoundedNetwork:
    """Equalize, then scales of least squared error; the argument is ``NetworkMethod``'s."""
    model = equalize(task.model, task.inputs[0], list(task.formats))
    return task.round_by(model, "mse", [], task.report)


def equalize(model: nn.Module, inputs: Tensor, names: Sequence[str]) -> nn.Module:
    """A copy of the network that gives the same, with equal ranges between layers that allow it.

    Args:
        model: in evaluation mode; it is not changed.
        inputs: of the network, to find the layers by.
        names: of the layers that may be changed.
    """
    found = copy.deepcopy(model)
    pairs = find_pairs(found, inputs, names)
    for _ in range(SWEEPS):
        farthest = max((_balance(found, pair) for pair in pairs), default=0.0)
        if farthest < CLOSE:
            break
    return found


def find_pairs(model: nn.Module, inputs: Tensor, names: Sequence[str]) -> list[Pair]:
    """The layers among ``names`` that follow each other, in no more than one pair on each side."""
    given, taken = _seen(model, inputs, names)
    # What a pair's scales change, they change for each input.
    one = beside(model, inputs[:1])
    with torch.no_grad():
        wanted = model(one)
    pairs: list[Pair] = []
    for second, x in taken.items():
        for first, y in given.items():
            alone = all(pair.first != first for pair in pairs)
            follows = y.shape == x.shape and (torch.equal(y, x) or torch.equal(y.relu(), x))
            if alone and first != second and follows:
                pair = Pair(first=first, second=second)
                if _is_free(model, one, wanted, pair):
                    pairs.append(pair)
                    break
    return pairs


def _seen(
    model: nn.Module, inputs: Tensor, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What each layer gives and takes; those that are used once, and are plain and ungrouped."""
    layers = find_layers(model)
    plain = [
        name
        for name in names
        if isinstance(layers[name].module, nn.Conv2d | nn.Linear)
        and getattr(layers[name].module, "groups", 1) == 1
        and sum(layers[other].weight is layers[name].weight for other in names) == 1
    ]
    once = {n: calls[0] for n, calls in watch(model, plain, inputs).items() if len(calls) == 1}
    given = {name: call.given for name, call in once.items() if call.given is not None}
    return given, {name: call.taken for name, call in once.items() if call.taken is not None}


def _is_free(model: nn.Module, inputs: Tensor, wanted: Tensor, pair: Pair) -> bool:
    """Whether both can be scaled and the network's output stays; by powers of two: exactly."""
    rows = model.get_submodule(pair.first).get_parameter("weight").shape[0]
    scale = torch.where(torch.arange(rows) % 2 == 0, 2.0, 0.5)
    _scale(model, pair, scale)
    try:
        with torch.no_grad():
            found = model(inputs)
    finally:
        _scale(model, pair, 1.0 / scale)
    return torch.allclose(wanted, found, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def _scale(model: nn.Module, pair: Pair, scale: Tensor) -> None:
    """Divide what the first gives by ``scale``, and multiply what the second does with it."""
    first, second = (model.get_submodule(name) for name in (pair.first, pair.second))
    weight, after = first.get_parameter("weight"), second.get_parameter("weight")
    scale = scale.to(weight)
    with torch.no_grad():
        weight.div_(scale.reshape(-1, *[1] * (weight.ndim - 1)))
        if "bias" in dict(first.named_parameters(recurse=False)):
            first.get_parameter("bias").div_(scale)
        after.mul_(scale.reshape(1, -1, *[1] * (after.ndim - 2)))


def _balance(model: nn.Module, pair: Pair) -> float:
    """Equalize one pair; how far the ranges were apart, as a logarithm."""
    first, second = (
        model.get_submodule(name).get_parameter("weight").detach()
        for name in (pair.first, pair.second)
    )
    before = first.abs().flatten(1).amax(1)
    after = second.abs().transpose(0, 1).flatten(1).amax(1)
    alive = (before > LEAST * before.amax()) & (after > LEAST * after.amax())
    scale = torch.where(alive, (before / after).clamp(min=0).sqrt(), torch.ones_like(before))
    _scale(model, pair, scale)
    return float(scale.log().abs().amax())
