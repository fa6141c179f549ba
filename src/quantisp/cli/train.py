"""``quantisp train``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.cli.options import DeviceOption
from quantisp.cli.plan_options import (
    ActivationBitsOption,
    GranularityOption,
    MethodOption,
    PlanOption,
    SumBitsOption,
    chosen_plan,
)
from quantisp.cli.progress import ProgressDisplay
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.api_fine_tuning import FineTuning
    from quantisp.cfa import CFAPattern
    from quantisp.training import TrainProgress

__all__ = ["train_command"]

DEFAULT_MINUTES = 60.0
# Of the learning rate. A network that is rounded well has more to lose than to learn; its codes and
# scales move at multiples of the rate.
FROM_SCRATCH, FLOAT_TUNING = 2e-3, 5e-5
TUNING = {"incremental": 2e-6, "lsq": 1e-6, "plain": 1e-6}
# Patches, and pixels of their side, in a step; the incremental form takes many small steps.
BATCH, INCREMENTAL_BATCH = 16, 2
PATCH_PX, LAST_PATCH_PX, INCREMENTAL_PX = 64, 128, 96
# Steps in which the rate rises. Fine-tuning is short, and its steps are small from the first.
WARM_UP, TUNING_WARM_UP = 500, 20
# Of a run that ends on squared error; one that begins near its end is all of that.
LAST_PHASE = 0.25
# What --qat says for a float network.
FLOAT = "float"


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
    domain: Annotated[
        str,
        typer.Option(
            help="What mosaics the network gets: srgb (coded, clean); linear, a sensor's, "
            "white-balanced, with noise of ISO 100 to 6400; or root, the square root of those."
        ),
    ] = "srgb",
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
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="At its peak.",
            show_default=f"{FROM_SCRATCH:g}, to fine-tune {TUNING['incremental']:g} "
            f"({TUNING['lsq']:g} with lsq, plain), in float {FLOAT_TUNING:g}",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Patches of 64 px a step (incremental: 96 px), over all devices.",
            show_default=f"{BATCH}, incremental {INCREMENTAL_BATCH}",
        ),
    ] = None,
    last_phase: Annotated[
        float | None,
        typer.Option(
            help="Share of the run that ends it, on squared error alone.",
            show_default="0.25, to fine-tune 1",
        ),
    ] = None,
    weight_bits: Annotated[
        int | None,
        typer.Option(
            help="Quantize the network of --init to this width, and train it so.",
            show_default="float",
        ),
    ] = None,
    method: MethodOption = None,
    granularity: GranularityOption = None,
    plan: PlanOption = None,
    activation_bits: ActivationBitsOption = None,
    sum_bits: SumBitsOption = None,
    qat: Annotated[
        str | None,
        typer.Option(
            help="incremental rounds one layer after the other while the rest makes up for it; "
            "lsq learns all codes and scales; plain takes scales from the largest values; float "
            "changes no width: the float network of --init, fine-tuned alike, to compare with.",
            show_default="incremental",
        ),
    ] = None,
    exposure_jitter: Annotated[
        float, typer.Option(help="Darken each patch by up to this share.")
    ] = 0.0,
    colour_jitter: Annotated[
        float, typer.Option(help="Darken each of R, G and B of a patch by up to this share.")
    ] = 0.0,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, or auto: bfloat16 where it is fast.",
            show_default="auto; float32 for --qat lsq, plain, float",
        ),
    ] = None,
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
    """Train a network for a CFA, or fine-tune a quantized one.

    A run that was stopped at any moment goes on with --resume. The best weights so far, by
    validation, are always in OUT/model.safetensors; `tensorboard --logdir OUT` shows the course.
    With --weight-bits or --plan that is the file of a quantized network.

    Example: quantisp train --data photos/ --cfa bayer --time-limit 60 --out run
    """
    from quantisp.api_training import train_model
    from quantisp.training import TrainSettings, is_first_process

    if steps is None and time_limit is None:
        time_limit = DEFAULT_MINUTES
    fine_tuning = _fine_tuning(
        weight_bits, method, granularity, plan, activation_bits, sum_bits, qat
    )
    tuned = fine_tuning is not None or qat == FLOAT
    if qat == FLOAT and init is None and ":" not in preset:
        raise SettingError(
            f"expected a trained network to fine-tune, found none: give --init beside --qat {FLOAT}"
        )
    form = fine_tuning.form if fine_tuning is not None else qat
    rate = FROM_SCRATCH if form is None else TUNING.get(form, FLOAT_TUNING)
    many_steps = form == "incremental"
    if many_steps and last_phase is not None:
        raise SettingError(
            "expected no --last-phase beside --qat incremental, whose loss is one all the way: "
            "leave out one"
        )
    settings = TrainSettings(
        seed=seed,
        domain=domain,
        steps=steps,
        time_limit_s=None if time_limit is None else time_limit * 60.0,
        optimizer=optimizer,
        learning_rate=rate if learning_rate is None else learning_rate,
        warmup_steps=TUNING_WARM_UP if tuned else WARM_UP,
        batch=batch if batch is not None else (INCREMENTAL_BATCH if many_steps else BATCH),
        patch_px=INCREMENTAL_PX if many_steps else PATCH_PX,
        last_patch_px=INCREMENTAL_PX if many_steps else LAST_PATCH_PX,
        last_phase=last_phase if last_phase is not None else (1.0 if tuned else LAST_PHASE),
        exposure_jitter=exposure_jitter,
        colour_jitter=colour_jitter,
        precision=precision or ("float32" if tuned and not many_steps else "auto"),
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
            fine_tuning=fine_tuning,
            on_layer=lambda count, total: display.show("rounding", count, total),
            on_read=lambda count, total: display.show("reading pictures", count, total),
            on_progress=show,
        )
    if not is_first_process():
        return
    best = max(point.psnr_db for point in curve)
    print(f"best on validation: {best:.3f} dB, in {out / 'model.safetensors'}")


def _fine_tuning(
    weight_bits: int | None,
    method: str | None,
    granularity: str | None,
    plan: Path | None,
    activation_bits: int | None,
    sum_bits: int | None,
    qat: str | None,
) -> FineTuning | None:
    if qat == FLOAT:
        named = {"--weight-bits": weight_bits, "--plan": plan}
        for option, value in named.items():
            if value is not None:
                raise SettingError(
                    f"expected no widths beside --qat {FLOAT}, found {option}: leave out one"
                )
    if weight_bits is None and plan is None:
        options = {
            "--method": method,
            "--granularity": granularity,
            "--activation-bits": activation_bits,
            "--sum-bits": sum_bits,
            "--qat": None if qat == FLOAT else qat,
        }
        for option, value in options.items():
            if value is not None:
                raise SettingError(
                    f"expected --weight-bits or --plan beside {option}, found neither: "
                    f"give one, or leave out {option}"
                )
        return None
    from quantisp.api_fine_tuning import FineTuning

    chosen = chosen_plan(weight_bits, method, granularity, plan, activation_bits, sum_bits)
    return FineTuning(plan=chosen) if qat is None else FineTuning(plan=chosen, form=qat)


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
