"""Records in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = (
    "| format | toolkit | method | PSNR dB | drop dB | worst image | to float | minutes "
    "| of its iterations | levels |",
    "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
)
# Decides what "ahead" means.
OURS = ("quantisp", "auto")


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """One line for each row that was measured, then each error, then who is ahead of ours."""
    measured = [record for record in records if "error" not in record]
    failed = [record for record in records if "error" in record]
    lines = [*HEAD, *(_line(record) for record in measured)]
    lines += ["", f"Float: {measured[0]['float_psnr_db']:.3f} dB." if measured else "No row."]
    lines += ["", *ahead(measured)]
    if failed:
        lines += ["", "| format | toolkit | method | error |", "|---|---|---|---|"]
        lines += [
            f"| {r['format']} | {r['toolkit']} | {r['method']} | {_escaped(r['error'])} |"
            for r in failed
        ]
    return "\n".join(lines) + "\n"


def ahead(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows whose PSNR is above that of ours at the same format, in words."""
    ours = {r["format"]: r["psnr_db"] for r in measured if (r["toolkit"], r["method"]) == OURS}
    lines = [
        f"- {r['toolkit']} {r['method']} is {r['psnr_db'] - ours[r['format']]:.3f} dB ahead of "
        f"{' '.join(OURS)} at {r['format']}"
        for r in measured
        if r["toolkit"] != OURS[0] and r["format"] in ours and r["psnr_db"] > ours[r["format"]]
    ]
    compared = ", ".join(ours)
    return lines or [
        f"No other toolkit is ahead of {' '.join(OURS)} at {compared}." if ours else ""
    ]


def _line(record: Mapping[str, Any]) -> str:
    to_float = record["psnr_to_float_db"]
    share = record["share_of_iterations"]
    off = len(record["off_grid"]) + len(record["float_layers"])
    # What a reader must not miss: a layer that is not what the row says it is.
    levels = f"{record['even_levels']}" + (f", {off} layers not" if off else "")
    return (
        f"| {record['format']} | {record['toolkit']} | {record['method']} "
        f"| {record['psnr_db']:.3f} | {record['drop_db']:.3f} "
        f"| {record['worst_image_drop_db']:.3f} "
        f"| {'' if to_float is None else f'{to_float:.2f}'} | {record['cpu_minutes']:.1f} "
        f"| {'' if share == 1.0 else f'{share:.2%}'} | {levels} |"
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
