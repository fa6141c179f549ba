"""From measurements to the table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quantisp.evaluation.measure import Measurement, capped_psnr_db
from quantisp.metrics import psnr_db
from quantisp.quantization import PlanCost
from quantisp.records import (
    FloatResult,
    LayerResult,
    Recommendation,
    RowGranularity,
    Setting,
    StudyResult,
    StudyRow,
)

__all__ = ["recommend", "summarise"]

# Digits that are kept: far below what float32 can tell apart, far above what anyone reads.
DIGITS = 6

Outcomes = Mapping[str, Measurement]


def summarise(
    model: str,
    model_sha256: str,
    cfa: str | None,
    protocol: Mapping[str, Any],
    references: Outcomes,
    outcomes: Sequence[tuple[Setting, Outcomes]],
    *,
    within_db: float,
    coverage: tuple[LayerResult, ...] = (),
    costs: Mapping[Setting, PlanCost | None] | None = None,
    layer_bits: Mapping[Setting, Mapping[str, int | None] | None] | None = None,
    decisions: Mapping[Setting, tuple[str, ...]] | None = None,
    float_cost: PlanCost | None = None,
) -> StudyResult:
    """Put the table together.

    Args:
        model, model_sha256, cfa, protocol: as in the result.
        references: the float network's measurement of each picture.
        outcomes: each setting's measurements of the same pictures.
        within_db: the drop that the recommendation allows.
        coverage: as in the result.
        costs, layer_bits, decisions: of each setting; what is missing is left out.
        float_cost: of the float network.
    """
    rows = tuple(
        replace(
            _costed(_row(setting, references, measured), (costs or {}).get(setting)),
            layer_bits=(layer_bits or {}).get(setting),
            decisions=(decisions or {}).get(setting, ()),
        )
        for setting, measured in outcomes
    )
    return StudyResult(
        model=model,
        model_sha256=model_sha256,
        cfa=cfa,
        protocol=protocol,
        float=FloatResult(
            psnr_db=_mean([m.psnr_db for m in references.values()]),
            psnr_crop10_db=_mean([m.psnr_crop10_db for m in references.values()]),
            ssim=_mean([m.ssim for m in references.values()]),
            images=_psnr_by_image(references),
            weight_bytes=None if float_cost is None else float_cost.weight_bytes,
            bops_per_px=None if float_cost is None else round(float_cost.bops_per_px, DIGITS),
        ),
        rows=rows,
        # Without a truth there is no drop that could be small enough.
        recommendation=recommend(rows if "reference" not in protocol else (), within_db),
        coverage=coverage,
    )


def recommend(rows: Sequence[StudyRow], within_db: float) -> tuple[Recommendation, ...]:
    """For each way of rounding, the fewest bits whose drop, and every wider one's, is allowed."""
    groups: dict[tuple[str, RowGranularity, int | None], list[StudyRow]] = {}
    for row in rows:
        if row.setting.is_uniform:
            groups.setdefault(row.setting.series, []).append(row)
    found: list[Recommendation] = []
    for (method, granularity, activation_bits), members in groups.items():
        fewest: int | None = None
        for row in sorted(members, key=lambda r: r.width, reverse=True):
            if row.drop_db > within_db:
                break
            fewest = row.width
        found.append(
            Recommendation(
                within_db=within_db,
                method=method,
                granularity=granularity,
                activation_bits=activation_bits,
                weight_bits=fewest,
            )
        )
    return tuple(found)


def _row(setting: Setting, references: Outcomes, measured: Outcomes) -> StudyRow:
    drops = [references[name].psnr_db - m.psnr_db for name, m in measured.items()]
    tile_drops = [m.worst_tile_drop_db(references[name]) for name, m in measured.items()]
    simulated = [m.simulated_mse for m in measured.values() if m.simulated_mse is not None]
    differing = [m.differing for m in measured.values() if m.differing is not None]
    to_float = [psnr_db(m.mse_to_float) for m in measured.values() if m.mse_to_float > 0.0]
    return StudyRow(
        weight_bits=setting.weight_bits,
        activation_bits=setting.activation_bits,
        method=setting.method,
        granularity=setting.granularity,
        psnr_db=_mean([m.psnr_db for m in measured.values()]),
        drop_db=_mean(drops),
        psnr_to_float_db=_mean(to_float) if to_float else None,
        worst_image_drop_db=round(max(drops), DIGITS),
        worst_tile_drop_db=round(max(tile_drops), DIGITS),
        psnr_crop10_db=_mean([m.psnr_crop10_db for m in measured.values()]),
        ssim=_mean([m.ssim for m in measured.values()]),
        images=_psnr_by_image(measured),
        plan=setting.plan,
        weight_format=setting.weight_format,
        simulated_psnr_db=_mean([capped_psnr_db(m) for m in simulated]) if simulated else None,
        differing_outputs=_mean(differing) if differing else None,
    )


def _costed(row: StudyRow, cost: PlanCost | None) -> StudyRow:
    if cost is None:
        return row
    return replace(
        row,
        mean_weight_bits=round(cost.mean_bits, DIGITS),
        weight_bytes=cost.weight_bytes,
        bops_per_px=round(cost.bops_per_px, DIGITS),
        mac_energy_pj=round(cost.mac_energy_pj, DIGITS),
        mac_area_um2=round(cost.mac_area_um2, DIGITS),
    )


def _psnr_by_image(measured: Outcomes) -> dict[str, float]:
    return {name: round(m.psnr_db, DIGITS) for name, m in measured.items()}


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), DIGITS)
