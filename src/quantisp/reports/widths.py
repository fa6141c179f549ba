"""Weight widths by activation widths: the drop of each pair, and the pairs worth building.

A multiplication of w by a bits takes w * a bit operations (BOPs), so that a network of uniform
widths is as expensive as w * a says, whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantisp.records import StudyResult, StudyRow
from quantisp.reports.series import decimals

__all__ = [
    "DROPS_DB",
    "Pair",
    "WidthTable",
    "frontier_lines",
    "width_markdown",
    "width_tables",
    "width_text",
]

DROPS_DB = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""The drops within which the cheapest pair is looked for."""

_SEEN_DB = 0.01
_WHY_LESS = (
    "less is lost with some activations in integers than in float, for their calibration also "
    "corrects biases, which makes up for a part of what rounding the weights did"
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A weight width, an activation width, and what they cost.

    >>> str(Pair(weight_bits=6, activation_bits=10, drop_db=0.05))
    'W6A10'
    """

    weight_bits: int
    activation_bits: int
    drop_db: float

    @property
    def bops(self) -> int:
        """Bit operations of one multiplication."""
        return self.weight_bits * self.activation_bits

    def __str__(self) -> str:
        return f"W{self.weight_bits}A{self.activation_bits}"


@dataclass(frozen=True, kw_only=True)
class WidthTable:
    """One way of rounding weights.

    Args:
        title: such as ``auto, per channel``.
        weight_bits: fewest first.
        activation_bits: fewest first; None, float, last.
        drop_db: by both widths; a pair may be missing.
        within_db: the drop that the recommendation allows, or None.
    """

    title: str
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int | None, ...]
    drop_db: Mapping[tuple[int, int | None], float]
    within_db: float | None

    def pairs(self) -> list[Pair]:
        """Those in integers, cheapest first, and of equal ones the better first."""
        found = [
            Pair(weight_bits=weight, activation_bits=activation, drop_db=drop)
            for (weight, activation), drop in self.drop_db.items()
            if activation is not None and math.isfinite(drop)
        ]
        return sorted(found, key=lambda pair: (pair.bops, pair.drop_db))

    def frontier(self) -> tuple[Pair, ...]:
        """The pairs that lose less than every cheaper one, or equally expensive one."""
        best = math.inf
        found: list[Pair] = []
        for pair in self.pairs():
            if pair.drop_db < best:
                best = pair.drop_db
                found.append(pair)
        return tuple(found)

    def cheapest(self, within_db: float) -> Pair | None:
        """The pair of fewest bit operations that loses at most so much."""
        return next((pair for pair in self.frontier() if pair.drop_db <= within_db), None)


def width_tables(result: StudyResult) -> tuple[WidthTable, ...]:
    """One table for each way of rounding; none if activations were in float throughout."""
    groups: dict[tuple[str, str], list[StudyRow]] = {}
    for row in result.rows:
        if row.setting.is_uniform:
            groups.setdefault((row.method, row.granularity), []).append(row)
    within = {choice.within_db for choice in result.recommendation}
    return tuple(
        WidthTable(
            title=f"{method}, per {granularity}",
            weight_bits=tuple(sorted({row.setting.width for row in rows})),
            activation_bits=_ordered({row.activation_bits for row in rows}),
            drop_db={(row.setting.width, row.activation_bits): row.drop_db for row in rows},
            within_db=min(within, default=None),
        )
        for (method, granularity), rows in groups.items()
        if any(row.activation_bits is not None for row in rows)
    )


def frontier_lines(table: WidthTable) -> list[str]:
    """The cheapest pair within each drop, in words.

    Such as ``cheapest within 0.1 dB: W6A10, 60 bit operations a multiplication (0.093 dB)``. Where
    activations in integers lose less than in float, also why that is.
    """
    lines: list[str] = []
    shown: Pair | None = None
    # From the tightest drop on; a pair is named where it first is enough.
    for within in sorted(_drops(table)):
        pair = table.cheapest(within)
        if pair is not None and pair != shown:
            lines.append(
                f"cheapest within {within:g} dB: {pair}, {pair.bops} bit operations "
                f"a multiplication ({decimals(pair.drop_db)} dB)"
            )
            shown = pair
    lines = lines or [f"no pair that was studied is within {max(_drops(table)):g} dB"]
    return lines + ([_WHY_LESS] if _loses_less(table) else [])


def width_text(tables: Sequence[WidthTable]) -> str:
    """Every table for a terminal, with what is worth building below."""
    return "\n".join(line for table in tables for line in (*_text(table), ""))


def width_markdown(table: WidthTable) -> list[str]:
    """The same as Markdown."""
    heads = ["weight bits", *(_name(bits) for bits in table.activation_bits)]
    rows = [[str(bits), *_cells(table, bits)] for bits in table.weight_bits]
    lines = [heads, ["---:"] * len(heads), *rows]
    return [
        "Drop in dB:",
        "",
        *(f"| {' | '.join(line)} |" for line in lines),
        "",
        *(f"- {line}" for line in frontier_lines(table)),
    ]


def _text(table: WidthTable) -> Iterator[str]:
    yield f"{table.title}: drop against float in dB"
    heads = [_name(bits) for bits in table.activation_bits]
    rows = [(f"W{bits}", _cells(table, bits)) for bits in table.weight_bits]
    width = max(len(cell) for cells in (heads, *(cells for _, cells in rows)) for cell in cells)
    yield "    " + "".join(f"  {head:>{width}}" for head in heads)
    for name, cells in rows:
        yield f"{name:<4}" + "".join(f"  {cell:>{width}}" for cell in cells)
    yield from frontier_lines(table)


def _cells(table: WidthTable, weight: int) -> list[str]:
    drops = [table.drop_db.get((weight, bits)) for bits in table.activation_bits]
    return ["" if drop is None else decimals(drop) for drop in drops]


def _loses_less(table: WidthTable) -> bool:
    """Whether a pair in integers loses less, to be seen, than the same weights in float."""
    floats = {weight: drop for (weight, bits), drop in table.drop_db.items() if bits is None}
    return any(
        pair.drop_db < floats.get(pair.weight_bits, 0.0) - _SEEN_DB for pair in table.pairs()
    )


def _drops(table: WidthTable) -> set[float]:
    return {*DROPS_DB, *([] if table.within_db is None else [table.within_db])}


def _name(bits: int | None) -> str:
    return "float" if bits is None else f"A{bits}"


def _ordered(bits: set[int | None]) -> tuple[int | None, ...]:
    return (*sorted(b for b in bits if b is not None), *([None] if None in bits else []))
