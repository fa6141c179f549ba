"""``quantisp study``."""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.cli.options import (
    AccumulatorOption,
    CalibrationOption,
    DegradationOption,
    DeviceOption,
    ImagesOption,
    InputsOption,
    JsonOption,
    ModelOption,
    OverflowOption,
    ProfileOption,
    SeedOption,
    TargetsOption,
    WeightsOption,
    find_accumulator,
    find_profile,
    parse_activation_widths,
    parse_list,
    parse_widths,
    wants_fit,
)
from quantisp.cli.plan_options import SumBitsOption, read_plans
from quantisp.cli.progress import ProgressDisplay, console
from quantisp.errors import SettingError
from quantisp.files import write_atomically

if TYPE_CHECKING:
    from quantisp.evaluation import StudyProgress

__all__ = ["study_command"]

PEAK_UNIT = 1e6 if sys.platform == "darwin" else 1e3


def study_command(
    model: ModelOption = "dephasenet-lite",
    weights: WeightsOption = None,
    images: ImagesOption = None,
    degradation: DegradationOption = None,
    inputs: InputsOption = None,
    targets: TargetsOption = None,
    weight_bits: Annotated[str, typer.Option(help="Widths: 8, 4-16, or 4,6,8.")] = "4-16",
    activation_bits: Annotated[
        str, typer.Option(help="Widths of feature maps, or float: 8, 6-12,float.")
    ] = "float",
    method: Annotated[
        str | None,
        typer.Option(
            help="Rounding methods of `quantisp info`, separated by commas; METHOD:tensor or "
            "METHOD:channel for one kind of scales alone.",
            show_default="rtn:tensor,auto:channel, the paper's rounding and our best",
        ),
    ] = None,
    granularity: Annotated[
        str | None,
        typer.Option(help="Scales per 'tensor', per 'channel', or both.", show_default="channel"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Also the best widths per layer within it: mean-bits=5, bytes=1000000, "
            "kilobytes=1000, bops=2e7 or bops=12.5% (of float's); repeatable.",
            show_default="none",
        ),
    ] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also this plan (JSON, formats per layer); repeatable.", show_default="none"
        ),
    ] = None,
    weight_format: Annotated[
        str,
        typer.Option(
            help="Also weights in float16, bfloat16, fp8-e4m3, mxfp6-e2m3, ...: "
            "formats of docs/mixed-precision.md, separated by commas.",
            show_default="none",
        ),
    ] = "",
    calibration: CalibrationOption = None,
    skip_layers: Annotated[
        str,
        typer.Option(
            help="Layers to leave in float: names or globs, separated by commas; '.' is the "
            "network itself.",
            show_default="none",
        ),
    ] = "",
    observer: Annotated[
        str, typer.Option(help="Ranges of feature maps by mse, minmax or percentile.")
    ] = "mse",
    input_bits: Annotated[
        int | None,
        typer.Option(
            help="Width of the input, of the float network too.",
            show_default="10 if feature maps have bits, else not rounded",
        ),
    ] = None,
    sum_bits: SumBitsOption = None,
    within: Annotated[
        float, typer.Option(help="Drop in dB that the recommendation allows.")
    ] = 0.05,
    seed: SeedOption = 0,
    crop: Annotated[
        list[str] | None,
        typer.Option(
            help="A 128x128 place to show: NAME (its middle) or NAME:TOP,LEFT; repeatable.",
            show_default="where bits hurt most",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/study"),
    device: DeviceOption = "auto",
    execution: Annotated[
        str,
        typer.Option(
            help="How feature maps in bits run: 'simulated' in float32, or 'integer', to the very "
            "numbers of hardware; the table then also shows the gap between the two."
        ),
    ] = "simulated",
    accumulator_bits: AccumulatorOption = None,
    overflow: OverflowOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what each number of weight and activation bits costs in picture quality.

    Writes study.json, study.csv, run.json, figures, crops and report.html to OUT, and the networks
    whose rounding looked at pictures to OUT/networks. A study that was stopped at any moment goes
    on where it was when the same command is given again.

    Example: quantisp study --images photos/ --weight-bits 4-10 --out results
    """
    from quantisp.api import study_with_crops
    from quantisp.reports import (
        captures_table,
        cost_screen_table,
        coverage_lines,
        has_other_rows,
        integer_lines,
        recommendation_lines,
        study_table,
        width_tables,
        width_text,
        write_report,
    )

    methods, granularities = _ways(method, granularity)
    began, start = datetime.now(UTC), time.monotonic()
    with ProgressDisplay() as display:

        def show(progress: StudyProgress) -> None:
            display.show("studying", progress.done_px, progress.total_px, progress.doing)

        outcome = study_with_crops(
            model,
            images or None,
            weights=weights,
            degradation=degradation,
            inputs=inputs,
            targets=targets,
            weight_bits=parse_widths(weight_bits),
            activation_bits=parse_activation_widths(activation_bits),
            methods=methods,
            granularities=granularities,
            budgets=budget or (),
            plans=read_plans(plan or ()),
            weight_formats=parse_list(weight_format),
            calibration=calibration or None,
            skip_layers=parse_list(skip_layers),
            observer=observer,
            input_bits=input_bits,
            sum_bits=sum_bits,
            within_db=within,
            seed=seed,
            crops=crop or (),
            out=out,
            device=device,
            execution=execution,
            accumulator=find_accumulator(accumulator_bits, overflow),
            fit=wants_fit(overflow),
            profile=find_profile(profile),
            on_read=lambda count, total: display.show("reading pictures", count, total),
            on_progress=show,
        )
    run = {
        **_run_record(began, time.monotonic() - start, device),
        "jobs": f"{outcome.measured_jobs} measured, {outcome.kept_jobs} kept from runs before",
    }
    write_atomically(out / "run.json", (json.dumps(run, indent=1) + "\n").encode())
    write_report(out, outcome.result, outcome.crops, run)
    if as_json:
        print(outcome.result.to_json(), end="")
        return
    screen = console()
    if not outcome.result.has_truth:
        screen.print(captures_table(outcome.result))
        screen.print(f"Report: {out / 'report.html'}", soft_wrap=True)
        return
    tables = width_tables(outcome.result)
    if tables:
        screen.print(width_text(tables))
    else:
        screen.print(study_table(outcome.result, columns=screen.width))
    if has_other_rows(outcome.result):
        screen.print(cost_screen_table(outcome.result))
    for line in integer_lines(outcome.result):
        screen.print(line)
    for line in [*recommendation_lines(outcome.result), *coverage_lines(outcome.result)]:
        screen.print(line)
    screen.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def _ways(method: str | None, granularity: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Methods, and the granularities of those that do not name their own."""
    if method is None:
        methods = ("rtn:tensor", "auto:channel") if granularity is None else ("rtn", "auto")
    else:
        methods = parse_list(method)
    if granularity is None:
        return methods, ("channel",)
    if methods and all(":" in name for name in methods):
        raise SettingError(
            f"expected a method without its own granularity beside --granularity, found {method}: "
            "leave out --granularity"
        )
    return methods, parse_list(granularity)


def _run_record(began: datetime, seconds: float, device: str) -> dict[str, str]:
    import numpy as np
    import torch

    from quantisp import __version__

    return {
        "command": shlex.join(["quantisp", *sys.argv[1:]]),
        "began": began.isoformat(timespec="seconds"),
        "seconds": f"{seconds:.1f}",
        "device": _device_name(device),
        # In kB on Linux, in bytes on macOS.
        "peak memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PEAK_UNIT:.0f} MB",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()}, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "system": platform.platform(),
        "quantisp": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _device_name(option: str) -> str:
    import torch

    from quantisp.inference import find_device

    device = find_device(option)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
