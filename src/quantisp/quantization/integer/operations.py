"""The operations of nodes as JSON, and back with every field checked.

An operation is an object: its ``kind`` is the name of the class in ``graph.nodes``, its fields are
those of the class, but for limits (which are integers of the node) and the tile of a mask (a
tensor). A size that depends on the input's is an expression: a number, ``"h"`` or ``"w"``, or a
list of one of ``+ * // % floor / max min`` and its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import sympy

from quantisp.errors import ModelError
from quantisp.quantization.graph.functions import FUNCTIONS
from quantisp.quantization.graph.nodes import (
    Add,
    Concat,
    Conv,
    ConvTranspose,
    Extent,
    Input,
    Linear,
    Mask,
    Multiply,
    Operation,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Requantize,
    Resize,
    Size,
    Slice,
    Table,
)

__all__ = ["INPUTS", "decode_operation", "encode_operation"]

Check = Callable[[Any], Any]
PAD_MODES = ("constant", "reflect", "replicate", "circular")
MOST = 1 << 24


def encode_operation(operation: Operation) -> dict[str, Any]:
    """An operation as a JSON object."""
    fields = {name: _plain(getattr(operation, name)) for name in _FIELDS[type(operation)]}
    return {"kind": type(operation).__name__, **fields}


def decode_operation(value: object, tile: Any = None) -> Operation:
    """The operation that an object stands for.

    Args:
        value: from a source that is not trusted.
        tile: of a mask.

    Raises:
        ModelError: a kind that there is not, or a field that is missing, unknown or wrong.
    """
    content = dict(cast("Mapping[str, Any]", value)) if isinstance(value, dict) else {}
    kind = _KINDS.get(str(content.pop("kind", None)))
    if kind is None:
        raise ModelError(f"expected an operation of {', '.join(_KINDS)}, found {value!r}")
    checks = _FIELDS[kind]
    if content.keys() != checks.keys():
        differing = sorted(content.keys() ^ checks.keys())
        raise ModelError(f"expected the fields of {kind.__name__}, {differing[0]!r} is not right")
    fields: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            fields[name] = check(content[name])
        # A size may divide by zero.
        except (TypeError, ValueError, RecursionError, ArithmeticError) as error:
            raise ModelError(
                f"expected {name} of {kind.__name__} as quantisp writes it, found {content[name]!r}"
            ) from error
    if kind is Mask:
        fields["tile"] = tile
    return cast("Operation", kind(**fields))


def _plain(value: Any) -> Any:
    if isinstance(value, Extent):
        return _encode_size(value.expression)
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[Any, ...]", value)]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _encode_size(expression: Any) -> Any:
    """An expression of sympy as a tree."""
    if expression.is_Symbol:
        return expression.name
    if expression.is_Integer:
        return int(expression)
    if expression.is_Rational:
        return ["/", int(expression.p), int(expression.q)]
    name = _SIZES_BY_CLASS.get(type(expression).__name__)
    if name is None:
        raise ModelError(
            f"expected sizes that follow from the input's by sums and whole quotients, found "
            f"{expression}: let the network work on sizes of its own"
        )
    return [name, *(_encode_size(argument) for argument in expression.args)]


def _quotient(a: Any, b: Any) -> Any:
    return sympy.floor(a / b)


_SIZES: dict[str, Callable[..., Any]] = {
    "+": sympy.Add,
    "*": sympy.Mul,
    "//": _quotient,
    "%": sympy.Mod,
    "floor": sympy.floor,
    "/": sympy.Rational,
    "max": sympy.Max,
    "min": sympy.Min,
}
_SIZES_BY_CLASS = {
    "Add": "+",
    "Mul": "*",
    "FloorDiv": "//",
    "CleanDiv": "//",
    "Mod": "%",
    "PythonMod": "%",
    "floor": "floor",
    "Max": "max",
    "Min": "min",
}


def _decode_size(value: Any) -> Any:
    if value in ("h", "w"):
        return sympy.Symbol(value, integer=True, positive=True)
    if isinstance(value, list):
        name, *arguments = cast("list[Any]", value)
        if len(arguments) > 16:
            raise ValueError(name)
        return _SIZES[_text(name, _SIZES)](*(_decode_size(argument) for argument in arguments))
    return sympy.Integer(_whole(value))


def _size(value: Any) -> Size:
    if not isinstance(value, str | list):
        return _whole(value)
    expression = _decode_size(value)
    found = Extent(text=str(expression), expression=expression)
    # What is no whole number for any input fails here.
    found.at(48, 96)
    return found


def _whole(value: Any, least: int = -MOST, most: int = MOST) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(value)
    return value


def _positive(value: Any) -> int:
    return _whole(value, 1)


def _tuple_of(check: Check, *counts: int) -> Check:
    def checked(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or (counts and len(cast("list[Any]", value)) not in counts):
            raise ValueError(value)
        return tuple(check(item) for item in cast("list[Any]", value))

    return checked


def _text(value: Any, choices: Any = None) -> str:
    if not isinstance(value, str) or (choices is not None and value not in choices):
        raise ValueError(value)
    return value


def _sign(value: Any) -> int:
    if _whole(value) not in (-1, 1):
        raise ValueError(value)
    return value


def _axes(value: Any) -> tuple[int, ...]:
    axes = _tuple_of(lambda axis: _whole(axis, -8, 7))(value)
    if sorted(axis % len(axes) for axis in axes) != list(range(len(axes))):
        raise ValueError(value)
    return axes


def _number(value: Any) -> float:
    # JSON has no infinity.
    if value in ("inf", "-inf"):
        return float(value)
    if type(value) not in (int, float) or math.isnan(value):
        raise ValueError(value)
    return float(value)


def _stop(value: Any) -> Size | None:
    return None if value is None else _size(value)


_PAIR = _tuple_of(_positive, 2)
_AMOUNTS = _tuple_of(lambda value: _whole(value, 0), 2)
_CONVOLUTION: dict[str, Check] = {
    "layer": _text,
    "stride": _PAIR,
    "padding": _AMOUNTS,
    "dilation": _PAIR,
    "groups": _positive,
}
_FIELDS: dict[type, dict[str, Check]] = {
    Input: {},
    Conv: _CONVOLUTION,
    ConvTranspose: {**_CONVOLUTION, "output_padding": _AMOUNTS},
    Linear: {"layer": _text},
    Add: {"sign": _sign},
    Multiply: {},
    Table: {
        "function": lambda value: _text(value, FUNCTIONS),
        "parameters": _tuple_of(_number),
    },
    Requantize: {},
    PixelShuffle: {"factor": _positive},
    PixelUnshuffle: {"factor": _positive},
    Concat: {"axis": lambda value: _whole(value, -8, 7)},
    Pad: {
        "amounts": _tuple_of(_size, 4),
        "mode": lambda value: _text(value, PAD_MODES),
    },
    Slice: {
        "axis": lambda value: _whole(value, -8, 7),
        "start": _size,
        "stop": _stop,
        "step": _positive,
    },
    Permute: {"axes": _axes},
    Resize: {"factors": _PAIR},
    Mask: {},
}
_KINDS = {kind.__name__: kind for kind in _FIELDS}
INPUTS: dict[type, int | None] = {
    kind: 0 if kind is Input else 2 if kind in (Add, Multiply) else None if kind is Concat else 1
    for kind in _FIELDS
}
"""How many inputs each kind takes; None is any number."""
