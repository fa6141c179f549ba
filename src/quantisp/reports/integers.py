"""What a study in integers says of the simulation in float."""

from __future__ import annotations

from quantisp.records import StudyResult

__all__ = ["integer_lines"]


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
