"""Nodes for sums, products and tables: one function and one line for each operation of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantisp.quantization.graph.lowering import Lowering
from quantisp.quantization.graph.nodes import Add, Clamp, Mask, Multiply, Table
from quantisp.quantization.graph.values import Call, Value, Zeros, as_number, as_tile

__all__ = ["ARITHMETIC"]

INFINITY = float("inf")


def _add(lowering: Lowering, call: Call) -> Value:
    return _sum(lowering, call, call["self"], call["other"], 1.0)


def _subtract(lowering: Lowering, call: Call) -> Value:
    return _sum(lowering, call, call["self"], call["other"], -1.0)


def _reverse_subtract(lowering: Lowering, call: Call) -> Value:
    return _sum(lowering, call, call["other"], call["self"], -1.0)


def _sum(lowering: Lowering, call: Call, first: Any, second: Any, sign: float) -> Value:
    if call.arguments.get("alpha", 1) != 1:
        raise lowering.unknown(f"{call.target} with alpha {call['alpha']}")
    if isinstance(second, Zeros):
        return first
    if isinstance(first, Zeros) and sign > 0:
        return second
    first_number, second_number = as_number(first), as_number(second)
    if second_number is not None:
        return _affine(lowering, call, first, 1.0, sign * second_number)
    if first_number is not None:
        return _affine(lowering, call, second, sign, first_number)
    names = [lowering.tensor(value, call.target) for value in (first, second)]
    _check_same_shape(lowering, call)
    return lowering.add(Add(sign=int(sign)), *names, name=call.name)


def _multiply(lowering: Lowering, call: Call) -> Value:
    first, second = call["self"], call["other"]
    if isinstance(first, Zeros) or isinstance(second, Zeros):
        return Zeros()
    for value, other in ((first, second), (second, first)):
        number = as_number(other)
        if number is not None:
            return _affine(lowering, call, value, number, 0.0)
        tile = as_tile(other)
        if tile is not None and isinstance(value, str):
            return lowering.add(Mask(tile=tile), value, name=call.name)
    names = [
        lowering.tensor(value, f"{call.target} by other numbers than 0 and 1")
        for value in (first, second)
    ]
    _check_same_shape(lowering, call)
    return lowering.add(Multiply(), *names, name=call.name)


def _divide(lowering: Lowering, call: Call) -> Value:
    number = as_number(call["other"])
    if not number or call.arguments.get("rounding_mode") is not None:
        raise lowering.unknown(f"{call.target} by a tensor")
    return _affine(lowering, call, call["self"], 1.0 / number, 0.0)


def _negate(lowering: Lowering, call: Call) -> Value:
    return _affine(lowering, call, call["self"], -1.0, 0.0)


def _add_product(lowering: Lowering, call: Call) -> Value:
    if call["value"] != 1:
        raise lowering.unknown(f"{call.target} with value {call['value']}")
    total, *factors = (
        lowering.tensor(call[name], call.target) for name in ("self", "tensor1", "tensor2")
    )
    product = lowering.add(Multiply(), *factors, name=f"{call.name}_product")
    return lowering.add(Add(), total, product, name=call.name)


def _affine(lowering: Lowering, call: Call, value: Any, factor: float, offset: float) -> Value:
    name = lowering.tensor(value, call.target)
    if (factor, offset) == (1.0, 0.0):
        return name
    return lowering.add(Table(function="affine", parameters=(factor, offset)), name, name=call.name)


def _table(function: str, *parameters: str) -> Callable[[Lowering, Call], Value]:
    def lowered(lowering: Lowering, call: Call) -> Value:
        numbers = tuple(float(call[name]) for name in parameters)
        operation = Table(function=function, parameters=numbers)
        return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)

    return lowered


def _gelu(lowering: Lowering, call: Call) -> Value:
    if call["approximate"] != "none":
        raise lowering.unknown(f"{call.target} with approximate {call['approximate']!r}")
    return _table("gelu")(lowering, call)


def _softplus(lowering: Lowering, call: Call) -> Value:
    if (call["beta"], call["threshold"]) != (1, 20):
        raise lowering.unknown(f"{call.target} with other numbers than its own")
    return _table("softplus")(lowering, call)


def _clamp(lower: float | str | None, upper: float | str | None) -> Callable[..., Value]:
    """A limit: a number, an argument's name, or None."""

    def lowered(lowering: Lowering, call: Call) -> Value:
        limits = [call[limit] if isinstance(limit, str) else limit for limit in (lower, upper)]
        clamp = Clamp(
            lower=-INFINITY if limits[0] is None else float(limits[0]),
            upper=INFINITY if limits[1] is None else float(limits[1]),
        )
        operation = Table(function="clamp", parameters=(clamp.lower, clamp.upper))
        return lowering.add(operation, lowering.tensor(call["self"], call.target), name=call.name)

    return lowered


def _check_same_shape(lowering: Lowering, call: Call) -> None:
    """Channels that are stretched over others would need a node of their own."""
    shapes = [node.meta["val"].shape for node in call.nodes.values()]
    fixed = [[size if isinstance(size, int) else None for size in shape] for shape in shapes]
    if any(shape != fixed[0] for shape in fixed):
        raise lowering.unknown(f"{call.target} of tensors of two shapes")


ARITHMETIC: dict[str, Callable[[Lowering, Call], Value]] = {
    "aten.abs.default": _table("abs"),
    "aten.add.Scalar": _add,
    "aten.add.Tensor": _add,
    "aten.addcmul.default": _add_product,
    "aten.clamp.default": _clamp("min", "max"),
    "aten.clamp_max.default": _clamp(None, "max"),
    "aten.clamp_min.default": _clamp("min", None),
    "aten.div.Scalar": _divide,
    "aten.div.Tensor": _divide,
    "aten.gelu.default": _gelu,
    "aten.hardsigmoid.default": _table("hardsigmoid"),
    "aten.hardswish.default": _table("hardswish"),
    "aten.hardtanh.default": _clamp("min_val", "max_val"),
    "aten.leaky_relu.default": _table("leaky_relu", "negative_slope"),
    "aten.mul.Scalar": _multiply,
    "aten.mul.Tensor": _multiply,
    "aten.neg.default": _negate,
    "aten.relu.default": _clamp(0.0, None),
    "aten.relu6.default": _clamp(0.0, 6.0),
    "aten.rsub.Scalar": _reverse_subtract,
    "aten.rsub.Tensor": _reverse_subtract,
    "aten.sigmoid.default": _table("sigmoid"),
    "aten.silu.default": _table("silu"),
    "aten.softplus.default": _softplus,
    "aten.sub.Scalar": _subtract,
    "aten.sub.Tensor": _subtract,
    "aten.tanh.default": _table("tanh"),
}
