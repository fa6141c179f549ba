"""Option values that more than one command reads, and the options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.quantization.integer import Accumulator, HardwareProfile

__all__ = [
    "AccumulatorOption",
    "CalibrationOption",
    "DegradationOption",
    "DeviceOption",
    "ImagesOption",
    "InputsOption",
    "JsonOption",
    "ModelOption",
    "OverflowOption",
    "PatternOption",
    "ProfileOption",
    "SeedOption",
    "TargetsOption",
    "WeightsOption",
    "find_accumulator",
    "find_profile",
    "parse_activation_widths",
    "parse_list",
    "parse_widths",
    "wants_fit",
]

WIDEST = 16
NARROWEST = 2
NARROWEST_ACTIVATION = 4
FIT = "fit"

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="A packaged name, a .safetensors file of quantisp, the folder of an integer network, "
        "package.module:factory, a .pt2 program, or a method of `quantisp info` without training.",
    ),
]
PatternOption = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        help="CFA of a method without training: bayer, WBWG/BWGW/WGWR/GWRW, ...",
        show_default="the model's own",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="State dict or quantized file (safetensors) for a package.module:factory model."
    ),
]
ImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--images",
        help="RGB pictures: a file, folder or glob, repeatable; or 'sample', the packaged ones.",
        show_default="sample",
    ),
]
DegradationOption = Annotated[
    str | None,
    typer.Option(
        "--degradation",
        help="What the network undoes: mosaic, mosaic:CFA, raw:ISO (a sensor's linear, noisy "
        "mosaic), raw-srgb:ISO (the same, coded), noise:SIGMA (8-bit steps), downscale:FACTOR, "
        "or none (inputs are pictures).",
        show_default="mosaic of the network's CFA; raw:800 for one that is trained on linear light",
    ),
]
InputsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of inputs, instead of --images; partners have the same names."),
]
TargetsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of what should be made of --inputs; may be whole times larger."),
]
CalibrationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--calibration",
        help="Pictures that rounding methods look at, none of them measured on; repeatable.",
        show_default="two packaged ones, if a method needs some",
    ),
]
AccumulatorOption = Annotated[
    int | None,
    typer.Option(
        "--accumulator-bits",
        help="Width of the sums of products, 8 to 64, in integers.",
        show_default="the profile's, else as wide as needed",
    ),
]
OverflowOption = Annotated[
    str | None,
    typer.Option(
        help="What becomes of a sum that does not fit --accumulator-bits: error, wrap, clamp; or "
        "fit: weights and widths for which every sum fits, whatever the input.",
        show_default="error",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="A hardware profile: a JSON file, npu-multiplier or isp-shift.",
        show_default="none",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        help="Of the places that calibration crops are cut from, and of what rounding methods draw."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of a table.")
]


def find_accumulator(bits: int | None, overflow: str | None) -> Accumulator | None:
    """What ``--accumulator-bits`` and ``--overflow`` say.

    Raises:
        SettingError: no such width or way, or a way without a width.
    """
    from quantisp.quantization.integer import Accumulator

    if bits is None:
        if overflow is not None and not wants_fit(overflow):
            raise SettingError(
                "expected a width beside --overflow, found none: give --accumulator-bits"
            )
        return None
    # Where every sum fits, none can be an error.
    way = "error" if wants_fit(overflow) else overflow or "error"
    return Accumulator(bits=bits, overflow=way)  # pyright: ignore[reportArgumentType]


def wants_fit(overflow: str | None) -> bool:
    """Whether ``--overflow`` asks for sums that fit."""
    return overflow == FIT


def find_profile(name: str | None) -> HardwareProfile | None:
    """The profile of ``--profile``.

    Raises:
        SettingError: there is none, or it is not as it should be.
    """
    from quantisp.quantization.integer import read_profile

    return None if name is None else read_profile(name)


def parse_widths(text: str) -> tuple[int, ...]:
    """``4-16``, ``6``, ``4,6,8-10`` as sorted widths in bits.

    Raises:
        SettingError: anything else, or outside 2 to 16.
    """
    return tuple(sorted(_widths(text.split(","), text, "weight", NARROWEST)))


def parse_activation_widths(text: str) -> tuple[int | None, ...]:
    """As :func:`parse_widths`, of 4 to 16 bits, and ``float`` as None.

    >>> parse_activation_widths("6-8,float")
    (None, 6, 7, 8)

    Raises:
        SettingError: anything else.
    """
    parts = text.split(",")
    numbers = [part for part in parts if part.strip() != "float"]
    widths = sorted(_widths(numbers, text, "activation", NARROWEST_ACTIVATION))
    return (*([None] if len(numbers) < len(parts) else []), *widths)


def _widths(parts: list[str], text: str, kind: str, least: int) -> set[int]:
    widths: set[int] = set()
    for part in parts:
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise _bad_widths(text, kind, least)
        low, high = int(first), int(last or first)
        if not least <= low <= high <= WIDEST:
            raise _bad_widths(text, kind, least)
        widths.update(range(low, high + 1))
    return widths


def parse_list(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _bad_widths(text: str, kind: str, least: int) -> SettingError:
    also = ", or float," if kind == "activation" else ""
    return SettingError(
        f"expected {kind} bits from {least} to {WIDEST}{also} like 8, 4-16 or 4,6,8, found "
        f"{text!r}: correct --{kind}-bits"
    )
