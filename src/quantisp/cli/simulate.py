"""``quantisp simulate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from quantisp.cli.options import JsonOption
from quantisp.cli.progress import ProgressDisplay, console
from quantisp.cli.raw_options import (
    HeightOption,
    PackingOption,
    PatternOption,
    StrideOption,
    WidthOption,
    parse_numbers,
    raw_options,
)
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.api_simulate import Simulated
    from quantisp.cfa import CFAPattern
    from quantisp.cfa.noise import NoiseModel

__all__ = ["simulate_command"]


def simulate_command(
    images: Annotated[
        list[str],
        typer.Argument(help="RGB pictures or Bayer raw files: files, folders, globs, or 'sample'."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    cfa: Annotated[str, typer.Option(help="The sensor's CFA: a name, or a tile.")] = "rgbw-kodak",
    bits: Annotated[int, typer.Option(help="Of the sensor, 2 to 16.")] = 10,
    black: Annotated[float, typer.Option(help="The sensor's black level, in codes.")] = 64.0,
    exposure: Annotated[float, typer.Option(help="EV: the light is multiplied by 2^EV.")] = 0.0,
    white_balance_gains: Annotated[
        str | None,
        typer.Option(
            help="R,G,B gains that make the camera's neutral grey.",
            show_default="1,1,1 for pictures; a capture's as shot, else grey world",
        ),
    ] = None,
    white_sensitivity: Annotated[
        float | None,
        typer.Option(help="W collects so many times the mean of R, G, B.", show_default="1"),
    ] = None,
    iso: Annotated[
        float | None, typer.Option(help="Noise of the camera at this ISO.", show_default="none")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="google-pixel or nexus-6 (with --iso), or S,O: the variance S x + O of a linear "
            "value x.",
            show_default="google-pixel with --iso, else none",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    curve: Annotated[
        str | None, typer.Option(help="Of RGB pictures: srgb or linear.", show_default="srgb")
    ] = None,
    file_format: Annotated[
        str, typer.Option("--format", help="dng, or npy or png (16 bits) with a JSON sidecar.")
    ] = "dng",
    width: WidthOption = None,
    height: HeightOption = None,
    packing: PackingOption = None,
    stride: StrideOption = None,
    pattern: PatternOption = None,
    raw_bits: Annotated[int | None, typer.Option(help="Bits of a raw file that is read.")] = None,
    raw_black: Annotated[
        str | None, typer.Option(help="Black level of it, or one a position: 200 or 64,64,60,64.")
    ] = None,
    raw_white: Annotated[float | None, typer.Option(help="White level of it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make captures of any CFA from RGB pictures or Bayer raw files.

    Example: quantisp simulate photos/ --cfa rgbw-kodak --iso 800 --out captures/
    """
    from quantisp.api_settings import check_seed
    from quantisp.api_simulate import simulate
    from quantisp.cfa.simulation import SensorSettings

    check_seed(seed)
    model, notes = _noise(iso, noise)
    settings = SensorSettings(
        pattern=_sensor(cfa, white_sensitivity),
        bits=bits,
        black=black,
        exposure_ev=exposure,
        noise=model,
        seed=seed,
    )
    with ProgressDisplay() as display:
        written = simulate(
            images,
            settings,
            out,
            white_balance_gains=_gains(white_balance_gains),
            raw_options=raw_options(
                width=width,
                height=height,
                packing=packing,
                stride=stride,
                pattern=pattern,
                bits=raw_bits,
                black=raw_black,
                white=raw_white,
            ),
            curve=curve,
            file_format=file_format,
            notes={**notes, "exposure_ev": f"{exposure:g}", "seed": str(seed)},
            on_progress=lambda count, total: display.show("simulating", count, total),
        )
    if as_json:
        files = [{**asdict(one), "path": str(one.path)} for one in written]
        document = {
            "cfa": str(settings.pattern),
            "bits": bits,
            "black": black,
            "noise": None if model is None else [model.shot, model.read],
            "files": files,
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
    else:
        console().print(_table(written))


def _sensor(cfa: str, white_sensitivity: float | None) -> CFAPattern:
    from quantisp.cfa import parse_pattern

    pattern = parse_pattern(cfa)
    if white_sensitivity is None:
        return pattern
    if "W" not in pattern.letters:
        raise SettingError(
            f"expected a CFA with W for --white-sensitivity, found {pattern}: leave it out"
        )
    if not 0.1 <= white_sensitivity <= 10:
        raise SettingError(
            f"expected a white sensitivity from 0.1 to 10, found {white_sensitivity:g}: correct it"
        )
    weight = white_sensitivity / 3
    return pattern.with_white((weight, weight, weight))


def _noise(iso: float | None, text: str | None) -> tuple[NoiseModel | None, dict[str, str]]:
    """The model, and what is noted of it."""
    from quantisp.cfa.noise import CAMERAS, NoiseModel, camera_noise

    if text is not None and text not in CAMERAS:
        shot, read = parse_numbers(text, "--noise", "S,O or a camera", count=2)
        if iso is not None:
            raise SettingError(
                f"expected --noise S,O alone, found --iso {iso:g} beside it: leave out one"
            )
        return NoiseModel(shot=shot, read=read), {"noise": text}
    if iso is None and text is not None:
        raise SettingError(f"expected an ISO for the noise of {text}, found none: give --iso")
    if iso is None:
        return None, {}
    camera = text or "google-pixel"
    return camera_noise(iso, camera), {"iso": f"{iso:g}", "noise": camera}


def _gains(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    red, green, blue = parse_numbers(text, "--white-balance-gains", "R,G,B", count=3)
    return red, green, blue


def _table(written: tuple[Simulated, ...]) -> Table:
    table = Table()
    for heading in ("capture", "px", "white balance", "saturated"):
        table.add_column(heading, overflow="fold")
    for one in written:
        gains = ", ".join(f"{1 / value:.3g}" for value in one.neutral)
        full = ", ".join(f"{letter} {100 * share:.1f}%" for letter, share in one.saturated.items())
        table.add_row(
            str(one.path), f"{one.width}x{one.height}", f"{gains} ({one.neutral_from})", full
        )
    return table
