"""What works best of all this: one step after the other, each kept if it is worth it.

A step stays if the squared error of the network's output against float falls by at least 1% on
inputs that the step did not see. No ground truth is looked at. Where the error is too small to be
seen, no slow step is tried, and where it is far below that, no further step at all. Where it is so
large that YAQA cannot be enough, incremental rounding, which rounds by YAQA, takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor, nn

from quantisp.errors import RunError
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.methods.bias_correction import corrected
from quantisp.quantization.methods.equalization import equalize
from quantisp.quantization.methods.incremental import MEASURING, rounded_incrementally
from quantisp.quantization.network import NetworkTask, RoundedNetwork, output_error
from quantisp.quantization.statistics import LayerStatistics, first_inputs, float_statistics

__all__ = ["choose_steps"]

# A step stays if the squared error of the network's output falls to this share.
WORTH_KEEPING = 0.99
# A mean squared error of outputs in [0, 1] that is a fifth of what rounding to 8 bits makes: 66 dB.
UNSEEN = 2.5e-7
# A tenth of that.
NOTHING = 2.5e-8
SLOW = ("incremental", "bias correction")
# Of the time that all steps take together.
SHARES = {
    "equalization": 0.02,
    "mse": 0.03,
    "yaqa": 0.15,
    "incremental": 0.75,
    "bias correction": 0.05,
}
# YAQA leaves about a thirtieth of the error of the range by squared error.
FAR = 100 * UNSEEN
# Of the calibration inputs, one in so many is kept apart to decide by.
HELD_OUT = 8


def choose_steps(task: NetworkTask) -> RoundedNetwork:
    """Equalization, range by squared error, YAQA, incremental rounding, corrected biases.

    Raises:
        RunError: the outputs are not finite.
    """
    count = len(task.inputs)
    apart = range(HELD_OUT - 1, count, HELD_OUT) or range(count - 1, count)
    held_out = [task.inputs[index] for index in apart]
    kept = [x for index, x in enumerate(task.inputs) if index not in apart]
    task = replace(task, inputs=kept)
    equal = equalize(task.model, kept[0], list(task.formats))
    base: nn.Module = task.model

    def error_of(rounded: RoundedNetwork) -> float:
        return output_error(rounded.network, task.model, held_out)

    known: list[tuple[Mapping[str, Tensor], Mapping[str, LayerStatistics]]] = []

    def felt(part: NetworkTask) -> tuple[Mapping[str, Tensor], Mapping[str, LayerStatistics]]:
        """Curvatures and moments in the network that the last steps begin with, known by then."""
        if not known:
            owners, report = task.owners(), part.part(0.0, MEASURING).report
            moments = float_statistics(base, owners, first_inputs(task.inputs))
            curvatures = task.checkpoints.remembered(
                "curvatures",
                lambda: output_curvatures(base, owners, task.inputs, moments, report),
            )
            known.append((curvatures, moments))
        return known[0]

    best = task.round_by(base, "rtn", [], _ignore)
    error = error_of(best)
    decisions = [f"rtn: mean squared error {error:.3g}"]
    steps: dict[str, Callable[[NetworkTask], RoundedNetwork]] = {
        "equalization": lambda part: part.round_by(equal, "rtn", [], part.report),
        "mse": lambda part: part.round_by(base, "mse", [], part.report),
        "yaqa": lambda part: part.round_by(
            base,
            "yaqa",
            part.inputs,
            part.part(MEASURING, 1.0).report,
            curvatures=felt(part)[0],
            checkpoints=task.checkpoints.under("yaqa"),
        ),
        "incremental": lambda part: rounded_incrementally(
            part.part(MEASURING, 1.0), base, *felt(part)
        ),
        "bias correction": lambda part: corrected(part, best),
    }
    waiting = list(steps)
    while waiting:
        name = waiting.pop(0)
        if error <= (UNSEEN if name in SLOW else NOTHING):
            decisions.append(f"{name} and what follows: not tried, for the error cannot be seen")
            break
        if name == "yaqa" and "incremental" in waiting and error > FAR:
            waiting = ["incremental", "yaqa", *waiting[1:]]
            continue
        begin = math.fsum(SHARES[other] for other in SHARES if other not in (name, *waiting))
        tried = steps[name](task.part(begin, begin + SHARES[name]))
        found = error_of(tried)
        taken = found <= WORTH_KEEPING * error
        decisions.append(f"{name}: mean squared error {found:.3g}, {'kept' if taken else 'left'}")
        if taken:
            best, error = tried, found
            base = equal if name == "equalization" else base
        if taken and name in ("yaqa", "incremental"):
            # Both correct biases, and incremental rounding rounds by YAQA.
            covered = [other for other in ("yaqa", "bias correction") if other in waiting]
            waiting = [other for other in waiting if other not in covered]
            decisions += [f"{other}: not tried, for it is a part of {name}" for other in covered]
    task.report(1, 1)
    if not math.isfinite(error):
        raise RunError("expected finite outputs on the calibration inputs: check the network")
    return replace(best, decisions=tuple(decisions))


def _ignore(_done: int, _total: int) -> None:
    """No report: it takes a moment."""
