"""A table of texts as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["plain_table"]


def plain_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str,
    *,
    chosen: int | None = None,
) -> str:
    """Names in the first column, numbers in the others.

    Args:
        headings: of the columns.
        rows: of texts.
        note: below the table.
        chosen: the row to stress.
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = [
        f"<tr{' class=chosen' if index == chosen else ''}>"
        f'<th class="name" scope="row">{escape(name)}</th>'
        + "".join(f"<td>{_number(cell)}</td>" for cell in cells)
        + "</tr>"
        for index, (name, *cells) in enumerate(rows)
    ]
    return "\n".join(
        [
            '<div class="wide">',
            "<table>",
            f"<caption>{escape(note)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *body,
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def _number(text: str) -> str:
    return escape(text).replace("-", "\N{MINUS SIGN}")
