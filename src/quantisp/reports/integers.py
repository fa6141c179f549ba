"""What a study in integers says of the simulation in float."""

from __future__ import annotations

from quantisp.records import StudyResult
from quantisp.reports.series import decimals

__all__ = ["GAP_HEADINGS", "GAP_NOTE", "gap_rows", "integer_lines"]

GAP_HEADINGS = ("setting", "in integers, dB", "simulated, dB", "gap, dB", "outputs that differ")
GAP_NOTE = (
    "Each setting in integers, which are hardware's very numbers, and simulated in float32, "
    "where sums beyond 2^24 are rounded; the gap is simulated minus integers"
)


def gap_rows(result: StudyResult) -> tuple[tuple[str, ...], ...]:
    """Each row that ran in integers, as text under ``GAP_HEADINGS``."""
    return tuple(
        (
            f"{row.setting.label}, A{row.activation_bits}, {row.method} per {row.granularity}",
            decimals(row.psnr_db),
            decimals(row.simulated_psnr_db),
            decimals(row.simulated_psnr_db - row.psnr_db, 4),
            f"{100 * row.differing_outputs:.3g}%",
        )
        for row in result.rows
        if row.simulated_psnr_db is not None and row.differing_outputs is not None
    )


def integer_lines(result: StudyResult) -> list[str]:
    """A line for each row that ran in integers: how far its simulation in float32 is from them.

    Such as ``8 bits, A8, rtn per channel: 41.204 dB in integers, 41.204 dB simulated; 0.02% of the
    output values differ``.
    """
    return [
        f"{row.setting.label}, A{row.activation_bits}, {row.method} per {row.granularity}: "
        f"{row.psnr_db:.3f} dB in integers, {row.simulated_psnr_db:.3f} dB simulated; "
        f"{100 * row.differing_outputs:.3g}% of the output values differ"
        for row in result.rows
        if row.simulated_psnr_db is not None and row.differing_outputs is not None
    ]
