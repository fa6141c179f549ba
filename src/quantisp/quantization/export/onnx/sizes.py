"""Sizes that follow from the picture's, computed by ONNX when the network runs."""

from __future__ import annotations

from typing import Any, cast

import sympy

from quantisp.errors import ModelError
from quantisp.quantization.export.onnx.builder import GraphBuilder
from quantisp.quantization.graph.nodes import Extent, Size

__all__ = ["Sizes"]

Part = tuple[str, int]


class Sizes:
    """Sizes as tensors of one int64 each.

    Args:
        builder: of the graph.
        source: the name of the network's input.
        picture: its height and width, or None where they are not known.
    """

    def __init__(self, builder: GraphBuilder, source: str, picture: tuple[int, int] | None) -> None:
        self._builder, self._source, self._picture = builder, source, picture
        self._known: dict[str, str] = {}

    def tensor(self, size: Size) -> str:
        """A size, known or to be computed when the network runs.

        Raises:
            ModelError: an expression that there are no operations for.
        """
        known = self.known(size)
        if known is not None:
            return self._builder.whole([known])
        return self._floor(*self._part(cast("Extent", size).expression))

    def known(self, size: Size) -> int | None:
        """A size as a number, or None where it is not known."""
        if not isinstance(size, Extent):
            return size
        return None if self._picture is None else size.at(*self._picture)

    def _part(self, expression: Any) -> Part:
        """A quotient: a tensor, and the whole number that it is to be divided by."""
        if expression.is_Symbol:
            return self._symbol(expression.name), 1
        if expression.is_Rational:
            return self._builder.whole([int(expression.p)]), int(expression.q)
        parts = [self._part(argument) for argument in expression.args]
        match type(expression).__name__:
            case "Add":
                return self._folded("Add", parts)
            case "Mul":
                tensor, bottom = parts[0]
                for other, below in parts[1:]:
                    tensor, bottom = self._builder.add("Mul", tensor, other), bottom * below
                return tensor, bottom
            case "Max" | "Min" as kind:
                return self._folded(kind, parts)
            case "floor":
                return self._floor(*parts[0]), 1
            case "FloorDiv" | "CleanDiv":
                (a, below_a), (b, below_b) = parts
                return self._floor(self._times(a, below_b), self._times(b, below_a)), 1
            case "Mod" | "PythonMod":
                (a, below_a), (b, below_b) = parts
                rest = self._builder.add("Mod", self._times(a, below_b), self._times(b, below_a))
                return rest, below_a * below_b
            case _:
                raise ModelError(
                    f"expected sizes of sums, products and whole quotients, found {expression}: "
                    "give --size, with which sizes are numbers"
                )

    def _folded(self, kind: str, parts: list[Part]) -> Part:
        """Added up, or the largest or least, over one denominator."""
        bottom = int(sympy.ilcm(*(below for _, below in parts), 1))
        tensors = [self._times(tensor, bottom // below) for tensor, below in parts]
        result = tensors[0]
        for tensor in tensors[1:]:
            result = self._builder.add(kind, result, tensor)
        return result, bottom

    def _times(self, tensor: str, factor: int) -> str:
        if factor == 1:
            return tensor
        return self._builder.add("Mul", tensor, self._builder.whole([factor]))

    def _floor(self, top: str, bottom: str | int) -> str:
        """Rounded down; ONNX divides whole numbers towards zero."""
        if bottom == 1:
            return top
        below = self._builder.whole([bottom]) if isinstance(bottom, int) else bottom
        rest = self._builder.add("Mod", top, below)
        return self._builder.add("Div", self._builder.add("Sub", top, rest), below)

    def _symbol(self, name: str) -> str:
        if name not in self._known:
            axis = {"h": 2, "w": 3}[name]
            self._known[name] = self._builder.add("Shape", self._source, start=axis, end=axis + 1)
        return self._known[name]
