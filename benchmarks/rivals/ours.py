"""quantisp itself, on the same crops."""

from __future__ import annotations

from quantisp.quantization import Plan, quantize
from quantisp.quantization.methods import needs_calibration

from .task import Outcome, Task, weight_and_bias


def measure_ours(task: Task, method: str, sum_bits: int | None = None) -> Outcome:
    """Quantize with one of our methods, per channel."""
    plan = Plan.uniform(
        weight_bits=task.weight_bits,
        activation_bits=task.activation_bits,
        method=method,
        granularity="channel",
        sum_bits=sum_bits,
    )
    looks = needs_calibration(method) or task.activation_bits is not None
    quantized = quantize(task.network, plan, task.mosaics if looks else None)
    return Outcome(
        weights={n: weight_and_bias(quantized.network.get_submodule(n)) for n in quantized.codes},
        network=None if task.activation_bits is None else quantized,
        settings=f"{method}, symmetric narrow range, per channel"
        + ("" if sum_bits is None else f", sums of {sum_bits} bits"),
        notes={"decisions": "; ".join(quantized.decisions)} if quantized.decisions else {},
    )
