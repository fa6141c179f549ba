"""What pages are made of, as HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

__all__ = ["css_class", "definitions", "figure", "number", "section"]


def section(heading: str, *parts: str) -> str:
    """A section with its heading, both as HTML."""
    return "\n".join(["<section>", f"<h2>{heading}</h2>", *parts, "</section>"])


def figure(media_type: str, content: bytes, alt: str, caption: str) -> str:
    """A picture inside the page; the caption is HTML."""
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure>\n<img alt="{escape(alt)}" src="data:{media_type};base64,{data}">\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def definitions(entries: Mapping[str, str]) -> str:
    """Names and what they are, as text."""
    pairs = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items())
    return "\n".join(["<dl>", *pairs, "</dl>"])


def number(text: str) -> str:
    """With the minus sign of print."""
    return text.replace("-", "\N{MINUS SIGN}")


def css_class(*names: str) -> str:
    """The attribute for some classes, or nothing for none."""
    used = " ".join(name for name in names if name)
    return f' class="{used}"' if used else ""
