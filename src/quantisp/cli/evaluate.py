"""``quantisp evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from quantisp.cli.options import (
    CalibrationOption,
    DegradationOption,
    DeviceOption,
    ImagesOption,
    InputsOption,
    JsonOption,
    ModelOption,
    PatternOption,
    SeedOption,
    TargetsOption,
    WeightsOption,
)
from quantisp.cli.plan_options import PlanOption, read_plan
from quantisp.cli.progress import ProgressDisplay, console

__all__ = ["evaluate_command"]


def evaluate_command(
    model: ModelOption = "dephasenet-lite",
    weights: WeightsOption = None,
    pattern: PatternOption = None,
    images: ImagesOption = None,
    degradation: DegradationOption = None,
    inputs: InputsOption = None,
    targets: TargetsOption = None,
    plan: PlanOption = None,
    calibration: CalibrationOption = None,
    border: Annotated[
        int, typer.Option(help="Pixels at each side that one of the figures leaves out.")
    ] = 10,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure PSNR and SSIM of each picture, and the means.

    Example: quantisp evaluate --images photos/
    """
    from quantisp.api import evaluate
    from quantisp.reports import evaluation_table

    with ProgressDisplay() as display:
        result = evaluate(
            model,
            images or None,
            weights=weights,
            pattern=pattern,
            degradation=degradation,
            inputs=inputs,
            targets=targets,
            plan=None if plan is None else read_plan(plan),
            calibration=calibration or None,
            border_px=border,
            seed=seed,
            device=device,
            on_read=lambda count, total: display.show("reading pictures", count, total),
            on_progress=lambda count, total: display.show("restoring", count, total),
        )
    if as_json:
        print(result.to_json(), end="")
    else:
        console().print(evaluation_table(result))
