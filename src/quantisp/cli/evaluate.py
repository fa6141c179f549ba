"""``quantisp evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.cli.options import (
    CalibrationOption,
    DegradationOption,
    DeviceOption,
    ImagesOption,
    InputsOption,
    JsonOption,
    ModelOption,
    TargetsOption,
    WeightsOption,
)
from quantisp.cli.progress import ProgressDisplay, console
from quantisp.errors import PlanError

if TYPE_CHECKING:
    from quantisp.quantization import Plan

__all__ = ["evaluate_command"]


def evaluate_command(
    model: ModelOption = "dephasenet-lite",
    weights: WeightsOption = None,
    images: ImagesOption = None,
    degradation: DegradationOption = None,
    inputs: InputsOption = None,
    targets: TargetsOption = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Quantize by this plan first (JSON, formats per layer).", show_default="float"
        ),
    ] = None,
    calibration: CalibrationOption = None,
    border: Annotated[
        int, typer.Option(help="Pixels at each side that one of the figures leaves out.")
    ] = 10,
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
            degradation=degradation,
            inputs=inputs,
            targets=targets,
            plan=None if plan is None else _read_plan(plan),
            calibration=calibration or None,
            border_px=border,
            device=device,
            on_read=lambda count, total: display.show("reading pictures", count, total),
            on_progress=lambda count, total: display.show("restoring", count, total),
        )
    if as_json:
        print(result.to_json(), end="")
    else:
        console().print(evaluation_table(result))


def _read_plan(path: Path) -> Plan:
    from quantisp.quantization import Plan

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"expected a plan as JSON at {path}, cannot read it ({error}): correct --plan"
        ) from error
    return Plan.from_json(text)
