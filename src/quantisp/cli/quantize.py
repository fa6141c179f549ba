"""``quantisp quantize``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from quantisp.cli.options import (
    AccumulatorOption,
    CalibrationOption,
    DegradationOption,
    JsonOption,
    ModelOption,
    OverflowOption,
    ProfileOption,
    SeedOption,
    WeightsOption,
    find_accumulator,
    find_profile,
    wants_fit,
)
from quantisp.cli.plan_options import (
    ActivationBitsOption,
    GranularityOption,
    MethodOption,
    PlanOption,
    SumBitsOption,
    chosen_plan,
)
from quantisp.cli.progress import ProgressDisplay, console
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.api_quantize import QuantizedFile
    from quantisp.quantization import Plan
    from quantisp.quantization.integer import HardwareProfile

__all__ = ["quantize_command"]


def quantize_command(
    out: Annotated[
        Path,
        typer.Option(
            help="The .safetensors file to write; a name without an ending is the folder of an "
            "integer network."
        ),
    ],
    model: ModelOption = "dephasenet-lite",
    weights: WeightsOption = None,
    weight_bits: Annotated[
        int | None, typer.Option(help="The width of every layer's weights, 2 to 16.")
    ] = None,
    method: MethodOption = None,
    granularity: GranularityOption = None,
    plan: PlanOption = None,
    activation_bits: ActivationBitsOption = None,
    sum_bits: SumBitsOption = None,
    accumulator_bits: AccumulatorOption = None,
    overflow: OverflowOption = None,
    profile: ProfileOption = None,
    calibration: CalibrationOption = None,
    degradation: DegradationOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Quantize a network into a file, which other commands take as --model.

    With activation bits and a folder as --out it becomes an integer network, which `quantisp info`
    takes.

    Example: quantisp quantize --weight-bits 6 --calibration photos/ --out lite-w6.safetensors
    """
    from quantisp.api_quantize import quantize_to_file

    chosen = chosen_plan(weight_bits, method, granularity, plan, activation_bits, sum_bits)
    accumulator, hardware = find_accumulator(accumulator_bits, overflow), find_profile(profile)
    if hardware is not None:
        chosen = _on_hardware(chosen, hardware)
        accumulator = accumulator or (None if out.suffix else hardware.accumulator)
    with ProgressDisplay() as display:
        written = quantize_to_file(
            model,
            chosen,
            out,
            weights=weights,
            degradation=degradation,
            calibration=calibration or None,
            accumulator=accumulator,
            fit=wants_fit(overflow),
            seed=seed,
            command=shlex.join(["quantisp", *sys.argv[1:]]),
            on_layer=lambda count, total: display.show("rounding", count, total),
        )
    if as_json:
        print(json.dumps(_facts(written), indent=1, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _facts(written).items():
        if name not in ("plan", "layers") and value != []:
            lines = "\n".join(value) if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), lines)
    console().print(table)


def _on_hardware(plan: Plan, profile: HardwareProfile) -> Plan:
    """The plan as a chip can do it.

    Raises:
        SettingError: its activations are in float.
    """
    from quantisp.quantization.integer import apply_profile

    if not plan.quantizes_activations:
        raise SettingError(
            "expected activation bits beside --profile, found none: give --activation-bits"
        )
    return apply_profile(plan, profile)


def _facts(written: QuantizedFile) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for layer in written.coverage.values():
        width = "float" if layer.weight_bits is None else f"{layer.weight_bits} bits"
        counts[width] = counts.get(width, 0) + layer.weights
    return {
        "file": str(written.path),
        "size_bytes": written.size_bytes,
        "model": written.model,
        "float_sha256": written.float_sha256,
        "weights": [f"{count:,} in {width}" for width, count in counts.items()],
        "decisions": list(written.decisions),
        "plan": json.loads(written.plan.to_json()),
        "layers": {name: asdict(layer) for name, layer in written.coverage.items()},
    }
