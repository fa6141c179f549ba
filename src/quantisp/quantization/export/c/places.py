"""Tensors in C: their types, pointers and shapes."""

from __future__ import annotations

from dataclasses import dataclass

from quantisp.quantization.export.c.instances import ctype
from quantisp.quantization.integer import Codes

__all__ = ["AXES", "Place"]

AXES = "nchw"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A tensor in C.

    Args:
        index: of its node; ``s[index]`` is its shape, and ``t<index>`` points to it.
        codes: of it.
    """

    index: int
    codes: Codes

    @property
    def type(self) -> str:
        """Of its elements."""
        return ctype(self.codes)

    @property
    def pointer(self) -> str:
        """The variable that points to it."""
        return f"t{self.index}"

    @property
    def shape(self) -> str:
        """The expression of its shape."""
        return f"s[{self.index}]"
