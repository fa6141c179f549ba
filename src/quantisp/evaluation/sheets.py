"""Cost sheets of a study's rows: what each plan needs on frames as large as the largest picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from quantisp.errors import ModelError
from quantisp.evaluation.pictures import StudyPicture
from quantisp.quantization import Graph, Plan
from quantisp.quantization.cost_sheet import network_sheet
from quantisp.records import Setting, StudyResult, StudyRow
from quantisp.records.costs import CostSheet

__all__ = ["cost_sheets", "with_sheets"]

log = logging.getLogger(__name__)


def cost_sheets(
    model: nn.Module,
    graph: Graph | None,
    plans: Mapping[Setting, Plan],
    pictures: Sequence[StudyPicture],
    factor: int,
) -> dict[Setting, CostSheet]:
    """The sheet of each setting with activations in integers.

    Args:
        model: the network.
        graph: of it; None where nothing needed one, and there are no sheets.
        plans: of the settings.
        pictures: of the study.
        factor: how many times larger than the input the output is.
    """
    if graph is None:
        return {}
    largest = max(pictures, key=lambda picture: (picture.width, picture.height))
    size = (largest.height // factor, largest.width // factor)
    if graph.size is not None:
        size = graph.size
    try:
        return {
            setting: network_sheet(graph, model, plan, size)
            for setting, plan in plans.items()
            if plan.quantizes_activations
        }
    except ModelError as error:
        log.info("no cost sheet: %s", error)
        return {}


def with_sheets(
    result: StudyResult, sheets: Mapping[Setting, CostSheet], within_db: float
) -> StudyResult:
    """The result with what line buffers and frames take, and the sheet of one row."""
    rows = tuple(
        row
        if (sheet := sheets.get(row.setting)) is None
        else replace(row, line_buffer_bytes=sheet.buffer_bytes, frame_bytes=sheet.streamed_bytes)
        for row in result.rows
    )
    known = [index for index, row in enumerate(rows) if row.setting in sheets]
    if not known:
        return result

    def rank(index: int) -> tuple[bool, float, float]:
        row: StudyRow = rows[index]
        good = row.drop_db <= within_db
        return not good, (row.bops_per_px or 0.0) if good else row.drop_db, row.drop_db

    chosen = min(known, key=rank)
    return replace(
        result, rows=rows, cost_sheet=sheets[rows[chosen].setting], cost_sheet_row=chosen
    )
