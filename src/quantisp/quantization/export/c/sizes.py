"""Sizes that depend on the input's, as C expressions."""

from __future__ import annotations

from typing import Any

from quantisp.errors import ModelError

__all__ = ["size_in_c"]

Fraction = tuple[str, int]


def size_in_c(tree: Any) -> str:
    """An expression of ``height`` and ``width`` that gives an int64_t.

    Args:
        tree: a size as ``network.json`` has it.

    Raises:
        ModelError: it divides by a size.
    """
    numerator, denominator = _fraction(tree)
    return numerator if denominator == 1 else f"({numerator} / {denominator})"


def _fraction(tree: Any) -> Fraction:
    if tree in ("h", "w"):
        return ("height" if tree == "h" else "width"), 1
    if not isinstance(tree, list):
        return f"INT64_C({int(tree)})", 1
    name, *arguments = tree
    if name == "/":
        return f"INT64_C({int(arguments[0])})", int(arguments[1])
    parts = [_fraction(argument) for argument in arguments]
    if name == "floor":
        return _floored(parts[0]), 1
    if name in ("//", "%"):
        return _divided(name, tree, parts)
    if name == "*":
        denominator = 1
        for _, own in parts:
            denominator *= own
        return "(" + " * ".join(n for n, _ in parts) + ")", denominator
    numerators, denominator = _together(parts)
    if name == "+":
        return "(" + " + ".join(numerators) + ")", denominator
    found = numerators[0]
    for other in numerators[1:]:
        found = f"{'greater' if name == 'max' else 'less'}({found}, {other})"
    return found, denominator


def _divided(name: str, tree: Any, parts: list[Fraction]) -> Fraction:
    divisor = tree[2]
    if isinstance(divisor, list | str) or int(divisor) < 1:
        raise ModelError(
            f"expected sizes that are divided by whole numbers, found {tree}: C cannot say it"
        )
    (numerator, denominator), whole = parts[0], int(divisor)
    floored = _floored((numerator, denominator * whole))
    if name == "//":
        return floored, 1
    return f"({numerator} - {denominator * whole} * {floored})", denominator


def _floored(part: Fraction) -> str:
    numerator, denominator = part
    return numerator if denominator == 1 else f"floored({numerator}, {denominator})"


def _together(parts: list[Fraction]) -> tuple[list[str], int]:
    """All over one denominator."""
    denominator = 1
    for _, own in parts:
        denominator *= own
    return [f"({n} * {denominator // own})" for n, own in parts], denominator
