"""``quantisp train``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.cli.options import DeviceOption
from quantisp.cli.progress import ProgressDisplay
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.cfa import CFAPattern
    from quantisp.training import TrainProgress

__all__ = ["train_command"]

DEFAULT_MINUTES = 60.0


def train_command(
    data: Annotated[
        list[str],
        typer.Option(
            help="Pictures to train on: file, folder, glob, or the folder of the MIT demosaicking "
            "or the HDR+ data set; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint and best weights.")],
    validation: Annotated[
        list[str] | None,
        typer.Option(
            help="Other pictures, to choose the best weights by; repeatable.",
            show_default="the data set's own, or every 20th picture of --data",
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Which network: a preset, or package.module:factory.")
    ] = "dephasenet-lite",
    cfa: Annotated[
        str | None,
        typer.Option(
            help="A CFA's name, or a tile like WBWG/BWGW/WGWR/GWRW.",
            show_default="rgbw-kodak, or that of your own network",
        ),
    ] = None,
    white: Annotated[
        str | None,
        typer.Option(
            help="What W collects of R, G and B, like 0.25,0.5,0.25.",
            show_default="a third of each",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Begin from this model's weights (same preset; any CFA)."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches in all.")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Minutes in all, resumptions included; the schedule fits itself to it.",
            show_default="60, without --steps",
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="muon or adamw.")] = "muon",
    learning_rate: Annotated[float, typer.Option(help="At its peak.")] = 2e-3,
    batch: Annotated[int, typer.Option(help="Patches a step, over all devices.")] = 16,
    last_phase: Annotated[
        float, typer.Option(help="Share of the run that ends it, on squared error alone.")
    ] = 0.25,
    exposure_jitter: Annotated[
        float, typer.Option(help="Darken each patch by up to this share.")
    ] = 0.0,
    colour_jitter: Annotated[
        float, typer.Option(help="Darken each of R, G and B of a patch by up to this share.")
    ] = 0.0,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where it is fast.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of patches and weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep the decoded pictures here, for other runs.",
            show_default="in OUT, while the run lasts",
        ),
    ] = None,
    hdrplus: Annotated[
        str, typer.Option(help="Of an HDR+ data set: final (JPEG, reduced) or merged (DNG).")
    ] = "final",
    device: DeviceOption = "auto",
    devices: Annotated[
        int, typer.Option(help="How many devices of this machine train together.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option(help="How many machines; start them with torchrun, which says so itself.")
    ] = 1,
    compiled: Annotated[
        bool, typer.Option("--compile", help="By way of torch.compile; for accelerators.")
    ] = False,
) -> None:
    """Train a network for a CFA.

    A run that was stopped at any moment goes on with --resume. The best weights so far, by
    validation, are always in OUT/model.safetensors; `tensorboard --logdir OUT` shows the course.

    Example: quantisp train --data photos/ --cfa bayer --time-limit 60 --out run
    """
    from quantisp.api_training import train_model
    from quantisp.training import TrainSettings, is_first_process

    if steps is None and time_limit is None:
        time_limit = DEFAULT_MINUTES
    settings = TrainSettings(
        seed=seed,
        steps=steps,
        time_limit_s=None if time_limit is None else time_limit * 60.0,
        optimizer=optimizer,
        learning_rate=learning_rate,
        batch=batch,
        last_phase=last_phase,
        exposure_jitter=exposure_jitter,
        colour_jitter=colour_jitter,
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
            pattern=_pattern(cfa, white),
            data=data,
            validation=validation or (),
            out=out,
            settings=settings,
            command=shlex.join(["quantisp", *sys.argv[1:]]),
            init=init,
            resume=resume,
            cache=cache,
            hdrplus=hdrplus,
            device=device,
            devices=devices,
            nodes=nodes,
            compiled=compiled,
            on_read=lambda count, total: display.show("reading pictures", count, total),
            on_progress=show,
        )
    if not is_first_process():
        return
    best = max(point.psnr_db for point in curve)
    print(f"best on validation: {best:.3f} dB, in {out / 'model.safetensors'}")


def _pattern(cfa: str | None, white: str | None) -> CFAPattern | None:
    from quantisp.cfa import CFAPattern, parse_pattern

    if white is None:
        return None if cfa is None else parse_pattern(cfa)
    try:
        red, green, blue = (float(weight) for weight in white.split(","))
    except ValueError:
        raise SettingError(
            f"expected three numbers like 0.25,0.5,0.25, found {white!r}: correct --white"
        ) from None
    pattern = CFAPattern.named("rgbw-kodak") if cfa is None else parse_pattern(cfa)
    if "W" not in pattern.letters:
        raise SettingError(f"expected a CFA with W beside --white, found {pattern}: leave one out")
    return pattern.with_white((red, green, blue))
