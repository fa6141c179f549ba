"""``quantisp demosaic``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from quantisp.cli.options import DeviceOption, JsonOption, WeightsOption
from quantisp.cli.progress import ProgressDisplay, console
from quantisp.cli.raw_options import (
    BlackOption,
    HeightOption,
    PackingOption,
    PatternOption,
    StrideOption,
    WhiteOption,
    WidthOption,
    raw_options,
)
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.api_demosaic import DemosaicedFile
    from quantisp.quantization import Plan

__all__ = ["demosaic_command"]

METHOD, GRANULARITY = "rtn", "channel"


def demosaic_command(
    raws: Annotated[
        list[str], typer.Argument(metavar="RAW...", help="Raw files, folders or globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    model: Annotated[
        str,
        typer.Option(
            help="As for `quantisp study`; auto is the packaged network for a capture's CFA, of "
            "several one that was trained on captures' light."
        ),
    ] = "auto",
    weights: WeightsOption = None,
    white_balance: Annotated[
        str | None,
        typer.Option(
            help="as-shot, grey-world, or gains of R,G,B like 2,1,1.5.",
            show_default="as-shot where the file says it, else grey-world",
        ),
    ] = None,
    tone: Annotated[
        str | None, typer.Option(help="srgb, or linear for linear light.", show_default="srgb")
    ] = None,
    picture_format: Annotated[
        str | None,
        typer.Option(
            "--format", help="png or tiff (16 bits), or jpeg (8 bits).", show_default="png"
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="bayer: write Bayer DNG files, for another pipeline, instead of pictures.",
            show_default="pictures",
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            "--bits",
            "--weight-bits",
            help="Quantize the network's weights to so many bits first, and compare with float.",
            show_default="float",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Of rounding, beside --bits.", show_default=METHOD)
    ] = None,
    granularity: Annotated[
        str | None,
        typer.Option(
            help="Scales per 'tensor' or 'channel', beside --bits.", show_default="channel"
        ),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            help="What mosaics the model gets: srgb (coded), linear, or root (of linear).",
            show_default="what it was trained on; linear for one of srgb whose CFA mixes colours",
        ),
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in px; it bounds the memory.")] = 768,
    width: WidthOption = None,
    height: HeightOption = None,
    raw_bits: Annotated[
        int | None, typer.Option(help="Bits of a raw file's samples.", show_default="the file's")
    ] = None,
    packing: PackingOption = None,
    stride: StrideOption = None,
    pattern: PatternOption = None,
    black: BlackOption = None,
    white: WhiteOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Develop raw files of any CFA to pictures, or to Bayer raw files.

    Levels, white balance, the network or a method such as bilinear or residual, the file's colour
    matrix, a tone curve. The same command goes on after a kill, and keeps what is there already.

    Example: quantisp demosaic captures/ --model dephasenet-lite-bayer --out pictures
    """
    from quantisp.api_demosaic import DemosaicSettings, demosaic_files

    chosen: Any = {"tone": tone, "picture_format": picture_format}
    _check_to(to, chosen)
    with ProgressDisplay() as display:
        made = demosaic_files(
            raws,
            out,
            model=model,
            weights=weights,
            options=raw_options(
                width=width,
                height=height,
                packing=packing,
                stride=stride,
                pattern=pattern,
                bits=raw_bits,
                black=black,
                white=white,
            ),
            settings=DemosaicSettings(
                white_balance=white_balance,
                domain=domain,
                to_bayer=to is not None,
                tile_px=tile,
                plan=_plan(bits, method, granularity),
                **{name: value for name, value in chosen.items() if value is not None},
            ),
            device=device,
            on_read=lambda count, total: display.show("reading", count, total),
            on_progress=lambda done, total, name: display.show("restoring", done, total, name),
        )
    if as_json:
        facts = [{**asdict(f), "source": str(f.source), "path": str(f.path)} for f in made]
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        console().print(_table(made, bits))


def _check_to(to: str | None, chosen: dict[str, str | None]) -> None:
    if to is None:
        return
    if to != "bayer":
        raise SettingError(f"expected --to bayer, found {to!r}: correct it, or leave it out")
    for option, value in (("--tone", chosen["tone"]), ("--format", chosen["picture_format"])):
        if value is not None:
            raise SettingError(
                f"expected no {option} beside --to bayer, which writes DNG files, found {value}: "
                "leave it out"
            )


def _plan(bits: int | None, method: str | None, granularity: str | None) -> Plan | None:
    if bits is None:
        for option, value in (("--method", method), ("--granularity", granularity)):
            if value is not None:
                raise SettingError(
                    f"expected --bits beside {option}, found none: give it, or leave out {option}"
                )
        return None
    from quantisp.quantization import Plan

    return Plan.uniform(
        weight_bits=bits,
        method=method or METHOD,
        granularity=granularity or GRANULARITY,  # pyright: ignore[reportArgumentType]
    )


def _table(made: tuple[DemosaicedFile, ...], bits: int | None) -> Table:
    models = ", ".join(dict.fromkeys(file.model for file in made))
    table = Table(title=models + ("" if bits is None else f", weights of {bits} bits"))
    table.add_column("raw file", overflow="fold")
    table.add_column("written", overflow="fold")
    table.add_column("Mpx", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("white balance: R, G, B of grey")
    if bits is not None:
        table.add_column("to float, dB", justify="right")
    for file in made:
        neutral = ", ".join(f"{value:.3f}" for value in file.neutral)
        cells = [str(file.source), str(file.path), f"{file.pixels / 1e6:.2f}"]
        cells.append("kept" if file.kept else f"{file.seconds:.1f}")
        cells.append(f"{file.white_balance}: {neutral}")
        psnr = file.psnr_to_float_db
        table.add_row(*cells, *([] if bits is None else [f"{psnr:.2f}" if psnr else "-"]))
    return table
