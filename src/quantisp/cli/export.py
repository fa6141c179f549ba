"""``quantisp export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from quantisp.cli.options import JsonOption
from quantisp.cli.progress import ProgressDisplay, console
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.api_export import Crop, Exported

__all__ = ["export_command"]


def export_command(
    network: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="An integer network: what `quantisp quantize --activation-bits` wrote.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier export is replaced.")],
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="c (a C99 program), onnx (opset 21), qonnx (true widths), vectors (npy, hex).",
        ),
    ],
    image: Annotated[
        str | None,
        typer.Option(
            help="What to verify on and make vectors of: an RGB picture, a raw file, or the "
            "network's input as .npy of floats.",
            show_default="a packaged photograph",
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            help="Of the mosaic, in px: X,Y,SIZE or X,Y,WIDTH,HEIGHT.",
            show_default="about 32x32 in the middle",
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="CFA of a network whose folder names none: bayer, WBWG/BWGW/WGWR/GWRW, ...",
            show_default="the folder's",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="The only size that an ONNX file is for, in px: WIDTH,HEIGHT.",
            show_default="every size that the network runs at",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The network's name there.", show_default="the folder's")
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified", help="Write even if nothing on this machine can run what is written."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write an integer network for hardware or another program, and verify what was written.

    Example: quantisp export lite-w8a8 --format vectors --out vectors/
    """
    from quantisp.api_export import export

    with ProgressDisplay() as display:
        written = export(
            network,
            out,
            file_format=file_format,
            image=image,
            crop=None if crop is None else _crop(crop),
            pattern=pattern,
            name=name,
            size=None if size is None else _size(size),
            unverified=unverified,
            on_progress=display.show,
        )
    facts = _facts(written)
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), _line(value))
    console().print(table)


def _crop(text: str) -> Crop:
    from quantisp.api_export import Crop

    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) not in (3, 4) or not all(number.isdecimal() for number in numbers):
        raise SettingError(
            f"expected X,Y,SIZE or X,Y,WIDTH,HEIGHT in px, found {text!r}: correct --crop"
        )
    x, y, width, *rest = (int(number) for number in numbers)
    return Crop(x=x, y=y, width=width, height=rest[0] if rest else width)


def _size(text: str) -> tuple[int, int]:
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise SettingError(f"expected WIDTH,HEIGHT in px, found {text!r}: correct --size")
    width, height = map(int, numbers)
    return height, width


def _facts(written: Exported) -> dict[str, Any]:
    return {
        "folder": str(written.path),
        "format": written.file_format,
        "name": written.name,
        "sample": dict(written.sample),
        "verified": written.verified,
        **written.facts,
    }


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
