"""Incremental rounding: layer by layer, while all weights still in float make up for it.

The layers whose rounding the network's output feels most are rounded first, each by itself, by
K-best, and the others by YAQA. After each, everything that is still free descends on the
difference of the output from the float network's: the weights in float, the biases, and the scales
of the layers that are rounded already. What a layer cannot make up for itself, because few inputs
reach it or nothing comes after it, the many insensitive layers can; they are rounded last, when
hardly anything is lost.

The descent sees mixtures of two inputs each, for which the float network gives outputs as well as
for any other input: few pictures make many. Each is seen twice in the mean, for its output is known
then.

Sources: Zhou et al., "Incremental network quantization", ICLR 2017 (a part is rounded, the rest
makes up for it, over and over; theirs are weights by magnitude, with labels); Li et al., "BRECQ",
ICLR 2021 (descending on the float network's output instead); Beyer et al., "Knowledge distillation:
A good teacher is patient and consistent", CVPR 2022 (mixtures); for the descent see
:mod:`quantisp.quantization.natural`. What is ours are the order, by each layer's error at the
output, and the loss: the mean logarithm of each input's squared error, for quality is measured in
decibels, and a picture with much detail must not outweigh all others. No ground truth is looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quantisp.quantization.bfloat16 import harmless
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.descent import Descent
from quantisp.quantization.layers import bias_of, find_layers
from quantisp.quantization.natural import metrics_of
from quantisp.quantization.network import (
    NetworkTask,
    Report,
    RoundedNetwork,
)
from quantisp.quantization.stages import ends_of, grouped, method_of, stages_of
from quantisp.quantization.statistics import LayerStatistics, first_inputs, float_statistics

__all__ = ["round_incrementally", "rounded_incrementally"]

# Of all stages together; in the last one every layer is rounded, and scales and biases are left.
STEPS = 900
# In steps, what it takes to tell what one layer does to the output, and to round it.
TOLD, ROUNDED = 1, 3
# The share of the time that the curvatures take.
MEASURING = 0.1


def round_incrementally(task: NetworkTask) -> RoundedNetwork:
    """Round a network; the argument is ``NetworkMethod``'s."""
    moments = float_statistics(task.model, task.owners(), first_inputs(task.inputs))
    measuring, rounding = task.part(0.0, MEASURING), task.part(MEASURING, 1.0)
    curvatures = task.checkpoints.remembered(
        "curvatures",
        lambda: output_curvatures(
            task.model, task.owners(), task.inputs, moments, measuring.report
        ),
    )
    return rounded_incrementally(rounding, task.model, curvatures, moments)


def rounded_incrementally(
    task: NetworkTask,
    base: nn.Module,
    curvatures: Mapping[str, Tensor],
    moments: Mapping[str, LayerStatistics],
) -> RoundedNetwork:
    """The same, from a network that gives what ``task.model`` gives by other weights.

    Args:
        task: what is to be rounded.
        base: that network; it is not changed.
        curvatures: of its layers (:func:`quantisp.quantization.curvature.output_curvatures`).
        moments: of its layers' inputs.

    Raises:
        RunError: the outputs are not finite.
    """
    # Rounds the layers of other methods, too.
    start = task.round_by(base, "rtn", [], _ignore)
    owners = task.owners()
    network = copy.deepcopy(start.network).eval().requires_grad_(False)
    floats = find_layers(base)
    with torch.no_grad():
        for name in owners:
            network.get_submodule(name).get_parameter("weight").copy_(floats[name].weight)
    everything = STEPS + (TOLD + ROUNDED) * len(owners)

    def part(begin: int, size: int) -> Report:
        return task.part(begin / everything, (begin + size) / everything).report

    done = TOLD * len(owners)
    errors = _errors_alone(task, base, part(0, done))
    stages = stages_of(errors)
    descent = Descent(
        task,
        network,
        metrics_of(curvatures, moments),
        harmless(task.model, grouped(stages), errors, task.inputs),
    )
    left = descent.take_up(task.checkpoints, stages)
    done += ROUNDED * sum(len(stage.layers) for stage in stages[: len(stages) - len(left)])
    done += descent.steps
    ends = ends_of(STEPS, stages)[len(stages) - len(left) :]
    for stage, end in zip(left, ends, strict=True):
        layers, method = stage.layers, method_of(floats, stage)
        report = part(done, ROUNDED * len(layers))
        # What they do to each other is made up for by what follows.
        walked = task.round_by(
            descent.network(), method, task.inputs, report, layers, curvatures, apart=True
        )
        done += ROUNDED * len(layers)
        descent.freeze({name: walked.weights[name] for name in layers})
        descent.correct({name: bias_of(walked.network.get_submodule(name)) for name in layers})
        steps = end - descent.steps
        descent.run(steps, part(done, steps))
        descent.leave(task.checkpoints)
        done += steps
    return start.with_weights(descent.weights(), descent.biases())


def _errors_alone(task: NetworkTask, base: nn.Module, report: Report) -> dict[str, float]:
    """The error of the output that each layer's rounding brings."""

    def found() -> dict[str, Tensor]:
        errors = task.errors_alone(base, task.owners(), report)
        return {name: torch.tensor(error, dtype=torch.float64) for name, error in errors.items()}

    kept = task.checkpoints.remembered("errors alone", found)
    return {name: float(kept[name]) for name in task.owners()}


def _ignore(_done: int, _total: int) -> None:
    """No report: it takes a moment."""
