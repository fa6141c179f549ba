"""Incremental rounding's stages: which layers are rounded together, and in which order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from quantisp.quantization.layers import Layer

__all__ = ["ends_of", "method_of", "stages_of"]

# A layer is rounded by itself until those that are left have this share of all errors.
SHARE = 0.05
MOST_ALONE = 5
# Stages of the others: each but the last takes half of the errors that are left.
GROUPS = 5
# Up to so many inputs of each output, a layer by itself is rounded by K-best.
FEW_INPUTS = 512


def stages_of(errors: Mapping[str, float]) -> list[list[str]]:
    """Which layers are rounded together, and in which order.

    What makes up for errors are the layers that make some: the first of them must not be rounded
    all at once, and of the last there may be many.

    >>> stages_of({"head": 8.0, "a": 1e-3, "tail": 9.0, "b": 2e-3})
    [['tail'], ['head'], ['b'], ['a']]
    >>> [len(stage) for stage in stages_of(dict.fromkeys("abcdefghijklmnopqrstu", 1.0))]
    [1, 1, 1, 1, 1, 8, 4, 2, 1, 1]

    Args:
        errors: of the network's output, with that layer alone rounded.
    """
    order = sorted(errors, key=lambda name: -errors[name])
    left, everything = list(order), sum(errors.values())
    stages: list[list[str]] = []
    while left and len(stages) < MOST_ALONE:
        if sum(errors[name] for name in left) < SHARE * everything:
            break
        stages.append([left.pop(0)])
    for _ in range(GROUPS - 1):
        half, part = 0.5 * math.fsum(errors[name] for name in left), list[str]()
        while math.fsum(errors[name] for name in left) > half:
            part.append(left.pop(0))
        stages.append(part)
    return [stage for stage in (*stages, left) if stage]


def method_of(layers: Mapping[str, Layer], names: Sequence[str]) -> str:
    """What the layers of a stage are rounded by; both methods correct the bias, too."""
    layer = layers[names[0]]
    channels = layer.axis("channel")
    outputs = 1 if channels is None else layer.weight.shape[channels] * layer.scale_groups
    is_small = len(names) == 1 and layer.weight.numel() <= FEW_INPUTS * outputs
    return "k-best-bias" if is_small else "yaqa"


def ends_of(steps: int, stages: Sequence[Sequence[str]], *, alone: int = 2) -> list[int]:
    """At which of so many steps each stage ends; one of a single layer has ``alone`` times as many.

    >>> ends_of(100, [["tail"], ["head"], ["a", "b"]])
    [40, 80, 100]
    """
    parts = [alone if len(names) == 1 else 1 for names in stages]
    return [steps * done // sum(parts) for done in itertools.accumulate(parts)]
