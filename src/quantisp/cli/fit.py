"""``quantisp fit``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from quantisp.cli.progress import ProgressDisplay, console

__all__ = ["fit_command"]


def fit_command(
    data: Annotated[
        list[str],
        typer.Option(help="Pictures to fit to: a file, folder or glob, repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    cfa: Annotated[str, typer.Option(help="The CFA: bayer, WBWG/BWGW/WGWR/GWRW, ...")],
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Other pictures, to measure on; repeatable.", show_default="none"),
    ] = None,
) -> None:
    """Fit linear demosaicing filters to pictures, by least squares: a model for any CFA in minutes.

    Example: quantisp fit --cfa rgbw-sony --data photos/ --out linear-sony.safetensors
    """
    from quantisp.api_fitting import fit_linear
    from quantisp.cfa import parse_pattern

    with ProgressDisplay() as display:
        fitted = fit_linear(
            pattern=parse_pattern(cfa),
            data=data,
            validation=validation or (),
            out=out,
            command=shlex.join(["quantisp", *sys.argv[1:]]),
            on_picture=lambda count, total: display.show("fitting", count, total),
        )
    screen = console()
    screen.print(f"{fitted.path}: fitted to {fitted.pictures} pictures", soft_wrap=True)
    if fitted.validation_psnr_db is not None:
        screen.print(f"On the validation pictures: {fitted.validation_psnr_db:.3f} dB")
