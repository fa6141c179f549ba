"""Options that say how a network is quantized: a plan's file, or one width for every layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantisp.errors import PlanError, SettingError

if TYPE_CHECKING:
    from quantisp.quantization import Plan

__all__ = [
    "ActivationBitsOption",
    "GranularityOption",
    "MethodOption",
    "PlanOption",
    "SumBitsOption",
    "chosen_plan",
    "read_plan",
    "read_plans",
]

METHOD, GRANULARITY = "auto", "channel"

PlanOption = Annotated[
    Path | None,
    typer.Option(
        "--plan", help="Quantize by this plan (JSON, formats per layer).", show_default="none"
    ),
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="Of rounding the weights.", show_default=METHOD)
]
GranularityOption = Annotated[
    str | None,
    typer.Option(
        "--granularity", help="Scales per 'tensor' or 'channel'.", show_default=GRANULARITY
    ),
]
ActivationBitsOption = Annotated[
    int | None,
    typer.Option(
        "--activation-bits", help="The width of feature maps, 4 to 16.", show_default="float"
    ),
]
SumBitsOption = Annotated[
    int | None,
    typer.Option(
        "--sum-bits",
        help="The width of feature maps that are added to others, up to 16; layers and products "
        "read them at that of --activation-bits.",
        show_default="that of --activation-bits",
    ),
]


def chosen_plan(
    weight_bits: int | None,
    method: str | None,
    granularity: str | None,
    plan: Path | None,
    activation_bits: int | None,
    sum_bits: int | None,
) -> Plan:
    """What the options say: a plan's file, or one width for every layer.

    The rounding is the best there is unless another is named.

    Raises:
        SettingError: neither, both, a width of sums alone, or no such width, method or granularity.
        PlanError: the file is no plan.
    """
    from quantisp.quantization import Plan

    if plan is None and weight_bits is None:
        raise SettingError("expected a width or a plan, found none: give --weight-bits or --plan")
    if plan is None:
        if sum_bits is not None and activation_bits is None:
            raise SettingError(
                "expected --activation-bits beside --sum-bits, found none: give both, or neither"
            )
        return Plan.uniform(
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            sum_bits=sum_bits,
            method=method or METHOD,
            granularity=granularity or GRANULARITY,  # pyright: ignore[reportArgumentType]
        )
    options = {
        "--weight-bits": weight_bits,
        "--activation-bits": activation_bits,
        "--sum-bits": sum_bits,
        "--method": method,
        "--granularity": granularity,
    }
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise SettingError(
            f"expected --plan alone, for it says everything, found {given[0]} beside it: "
            "leave out one of the two"
        )
    return read_plan(plan)


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        PlanError: it cannot be read, or is none.
    """
    from quantisp.quantization import Plan

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"expected a plan as JSON at {path}, cannot read it ({error}): correct --plan"
        ) from error
    return Plan.from_json(text)


def read_plans(paths: Sequence[Path]) -> dict[str, Plan]:
    """Several, by their files' names without the ending.

    Raises:
        PlanError: as of :func:`read_plan`, or two files of one name.
    """
    plans = {path.stem: read_plan(path) for path in paths}
    if len(plans) < len(paths):
        raise PlanError("expected plan files of different names, found one twice: rename one")
    return plans
