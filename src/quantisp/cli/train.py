"""``quantisp train``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.cli.options import DeviceOption
from quantisp.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from quantisp.training import TrainProgress

__all__ = ["train_command"]

DEFAULT_MINUTES = 60.0


def train_command(
    data: Annotated[
        list[str], typer.Option(help="Pictures to train on: file, folder or glob; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint and best weights.")],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            help="Other pictures, to choose the best weights by; repeatable.",
            show_default="every 20th picture of --data",
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="Which network.")] = "dephasenet-lite",
    cfa: Annotated[
        str, typer.Option(help="A CFA's name, or a tile like WBWG/BWGW/WGWR/GWRW.")
    ] = "rgbw-kodak",
    init: Annotated[
        str | None, typer.Option(help="Begin from this model's weights (same preset and CFA).")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches in all.")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Minutes in all, resumptions included; the schedule fits itself to it.",
            show_default="60, without --steps",
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 1.2e-3,
    batch: Annotated[int, typer.Option(help="Patches a step.")] = 16,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where it is fast.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of patches and weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Train a network for a CFA.

    A run that was stopped at any moment goes on with --resume. The best weights so far, by
    validation, are always in OUT/model.safetensors.

    Example: quantisp train --data photos/ --cfa bayer --time-limit 60 --out run
    """
    from quantisp.api_training import train_model
    from quantisp.cfa import parse_pattern
    from quantisp.training import TrainSettings

    if steps is None and time_limit is None:
        time_limit = DEFAULT_MINUTES
    settings = TrainSettings(
        seed=seed,
        steps=steps,
        time_limit_s=None if time_limit is None else time_limit * 60.0,
        learning_rate=learning_rate,
        batch=batch,
        precision=precision,
    )
    with ProgressDisplay() as display:

        def show(progress: TrainProgress) -> None:
            best = max((point.psnr_db for point in progress.curve), default=None)
            note = "" if best is None else f", best {best:.2f} dB"
            doing = f"step {progress.step}, {progress.patches_per_s:.0f} patches/s{note}"
            display.show("training", progress.share, 1.0, doing)

        curve = train_model(
            preset=preset,
            pattern=parse_pattern(cfa),
            data=data,
            validation=validation or (),
            out=out,
            settings=settings,
            command=shlex.join(["quantisp", *sys.argv[1:]]),
            init=init,
            resume=resume,
            device=device,
            on_read=lambda count, total: display.show("reading pictures", count, total),
            on_progress=show,
        )
    best = max((point.psnr_db for point in curve), default=float("nan"))
    print(f"best on validation: {best:.3f} dB, in {out / 'model.safetensors'}")
