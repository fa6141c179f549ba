"""Kernels in C: templates, each written out for the types that a network needs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from quantisp.quantization.integer import Codes

__all__ = ["Instances", "ctype", "filled", "short", "width_for"]

TIES = {"half_up": "up from the middle", "half_even": "to the even one from the middle"}
# One less where it was in the middle, and is odd.
EVEN = """    const uint@BITS@_t rest = (uint@BITS@_t)lifted & ((uint@BITS@_t)half * 2 - 1);
    rounded -= (int@BITS@_t)((uint@BITS@_t)rounded & (uint@BITS@_t)(rest == 0));
"""
INT32 = 1 << 31


def ctype(codes: Codes) -> str:
    """The narrowest C type that holds the codes, and 0."""
    low, high = min(codes.low, 0), max(codes.high, 0)
    if low == 0:
        return "uint8_t" if high < 1 << 8 else "uint16_t"
    return "int8_t" if low >= -(1 << 7) and high < 1 << 7 else "int16_t"


def short(name: str) -> str:
    """A type in a function's name: u8, s16 and so on."""
    return ("u" if name.startswith("u") else "s") + "".join(c for c in name if c.isdigit())


def width_for(largest: int, shift: int) -> int:
    """The bits in which numbers of that magnitude can be rounded after a shift."""
    return 32 if largest + (1 << (shift - 1)) < INT32 and shift <= 30 else 64


class Instances:
    """The kernels of one program, in the order in which they are needed.

    Args:
        tie_rule: of all rounding.
    """

    def __init__(self, tie_rule: str) -> None:
        self.tie_rule = tie_rule
        self.texts: dict[str, str] = {}

    def use(self, template: str, name: str, **words: object) -> str:
        """The name of a function; its text is written out when it is first needed."""
        if name not in self.texts:
            self.texts[name] = filled(f"{template}.c", {"ID": name, **words})
        return name

    def rounding(self, bits: int) -> None:
        """What rounds and limits numbers of 32 or 64 bits."""
        self.use("limited", f"limited{bits}", BITS=bits)
        self.use(
            "rounding",
            f"rescaled{bits}",
            EVEN=EVEN if self.tie_rule == "half_even" else "",
            TIES=TIES[self.tie_rule],
            MOST=bits - 2,
            BITS=bits,
        )

    def __str__(self) -> str:
        return "\n".join(self.texts.values())


def filled(name: str, words: Mapping[str, object]) -> str:
    """A file of ``kernels`` with each ``@WORD@`` replaced."""
    path = resources.files("quantisp.quantization.export.c") / "kernels" / name
    text = path.read_text(encoding="utf-8")
    # What is put in may have words of its own.
    for _ in range(2):
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
    return text
