"""What ``quantisp info --cost`` shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from quantisp.cli.plan_options import chosen_plan
from quantisp.cli.progress import console
from quantisp.errors import SettingError

if TYPE_CHECKING:
    from quantisp.quantization import Plan

__all__ = ["check_cost_options", "show_costs"]

HEIGHT, WIDTH = 3000, 4000


def check_cost_options(cost: bool, model: str | None, options: dict[str, object]) -> None:
    """Refuse options of the cost sheet without it, and it without a model.

    Raises:
        SettingError: one of the two.
    """
    given = [name for name, value in options.items() if value is not None]
    if not cost and given:
        raise SettingError(f"expected --cost beside {given[0]}, found none: give it")
    if cost and model is None:
        raise SettingError("expected a model beside --cost, found none: name one")


def show_costs(
    model: str,
    *,
    weights: Path | None,
    plan: Path | None,
    weight_bits: int | None,
    activation_bits: int | None,
    sum_bits: int | None,
    size: tuple[int | None, int | None],
    as_json: bool,
) -> None:
    """Print the cost sheet of a model, as a table or as JSON."""
    from quantisp.api_costs import cost_sheet
    from quantisp.reports.cost_sheet import SHEET_NOTE, cost_sheet_table, sheet_totals

    height, width = size[0] or HEIGHT, size[1] or WIDTH
    chosen = _plan(plan, weight_bits, activation_bits, sum_bits)
    sheet = cost_sheet(model, weights=weights, plan=chosen, height=height, width=width)
    if as_json:
        print(json.dumps({"model": model, **sheet.to_dict()}, indent=1, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in {"model": model, **sheet_totals(sheet)}.items():
        table.add_row(name, value)
    screen = console()
    screen.print(table)
    screen.print(cost_sheet_table(sheet))
    screen.print(f"{SHEET_NOTE}.", style="dim")


def _plan(
    plan: Path | None, weight_bits: int | None, activation_bits: int | None, sum_bits: int | None
) -> Plan | None:
    from quantisp.quantization import Plan

    if plan is not None:
        return chosen_plan(weight_bits, None, None, plan, activation_bits, sum_bits)
    if sum_bits is not None and activation_bits is None:
        raise SettingError(
            "expected --activation-bits beside --sum-bits, found none: give both, or neither"
        )
    if weight_bits is None and activation_bits is None:
        return None
    return Plan.uniform(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        sum_bits=sum_bits,
        granularity="channel",
    )
