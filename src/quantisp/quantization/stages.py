"""Incremental rounding's stages: which layers are rounded together, and in which order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantisp.quantization.layers import Layer

__all__ = ["Stage", "ends_of", "grouped", "method_of", "stages_of"]

# A layer is rounded by itself until those that are left have this share of all errors.
SHARE = 0.05
MOST_ALONE = 5
# Stages of the others: each but the last takes half of the errors that are left.
GROUPS = 5
# Up to so many inputs of each output, a layer by itself is rounded by K-best.
FEW_INPUTS = 512


@dataclass(frozen=True)
class Stage:
    """Layers that are rounded together.

    Attributes:
        layers: their names, those with the most error first.
        is_alone: it is of one layer, which the output feels so much that it is rounded by itself.
            A group of several may come down to one layer, too; that one is like any other.
    """

    layers: tuple[str, ...]
    is_alone: bool = False


def stages_of(errors: Mapping[str, float]) -> list[Stage]:
    """Which layers are rounded together, and in which order.

    What makes up for errors are the layers that make some: the first of them must not be rounded
    all at once, and of the last there may be many.

    >>> for stage in stages_of({"head": 8.0, "a": 1e-3, "tail": 9.0, "b": 2e-3}):
    ...     print(stage)
    Stage(layers=('tail',), is_alone=True)
    Stage(layers=('head',), is_alone=True)
    Stage(layers=('b',), is_alone=False)
    Stage(layers=('a',), is_alone=False)
    >>> [len(stage.layers) for stage in stages_of(dict.fromkeys("abcdefghijklmnopqrstu", 1.0))]
    [1, 1, 1, 1, 1, 8, 4, 2, 1, 1]

    Args:
        errors: of the network's output, with that layer alone rounded.
    """
    order = sorted(errors, key=lambda name: -errors[name])
    left, everything = list(order), sum(errors.values())
    stages: list[Stage] = []
    while left and len(stages) < MOST_ALONE:
        if sum(errors[name] for name in left) < SHARE * everything:
            break
        stages.append(Stage((left.pop(0),), is_alone=True))
    for _ in range(GROUPS - 1):
        half, part = 0.5 * math.fsum(errors[name] for name in left), list[str]()
        while math.fsum(errors[name] for name in left) > half:
            part.append(left.pop(0))
        stages.append(Stage(tuple(part)))
    return [stage for stage in (*stages, Stage(tuple(left))) if stage.layers]


def grouped(stages: Sequence[Stage]) -> list[str]:
    """All layers that are not rounded by themselves."""
    return [name for stage in stages if not stage.is_alone for name in stage.layers]


def method_of(layers: Mapping[str, Layer], stage: Stage) -> str:
    """What the layers of a stage are rounded by; both methods correct the bias, too."""
    layer = layers[stage.layers[0]]
    channels = layer.axis("channel")
    outputs = 1 if channels is None else layer.weight.shape[channels] * layer.scale_groups
    is_small = stage.is_alone and layer.weight.numel() <= FEW_INPUTS * outputs
    return "k-best-bias" if is_small else "yaqa"


def ends_of(steps: int, stages: Sequence[Stage], *, alone: int = 2) -> list[int]:
    """At which of so many steps each stage ends.

    >>> ends_of(90, [Stage(("tail",), is_alone=True), Stage(("a", "b"))])
    [60, 90]

    Args:
        steps: of all stages together.
        stages: in their order.
        alone: how many times as long the stage of a layer that is rounded by itself takes.
    """
    parts = [alone if stage.is_alone else 1 for stage in stages]
    return [steps * done // sum(parts) for done in itertools.accumulate(parts)]
