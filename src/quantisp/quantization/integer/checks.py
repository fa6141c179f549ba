"""Whether the integers of a node fit it: for files, which may say anything."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization.activations.rescaling import MAX_SHIFT, MULTIPLIER_BITS
from quantisp.quantization.activations.settings import (
    BIAS_BITS,
    MAX_ACTIVATION_BITS,
    MIN_ACTIVATION_BITS,
)
from quantisp.quantization.formats import MAX_BITS, MIN_BITS
from quantisp.quantization.graph.nodes import (
    Add,
    Conv,
    ConvTranspose,
    Input,
    Mask,
    Multiply,
    Node,
    Pad,
    Requantize,
    Table,
)
from quantisp.quantization.integer.network import Codes, NodeIntegers
from quantisp.quantization.integer.operations import INPUTS

__all__ = ["check_node"]


def check_node(node: Node, own: NodeIntegers, before: Mapping[str, NodeIntegers]) -> None:
    """Refuse a node that does not fit those before it, or whose integers do not fit its widths.

    Raises:
        ModelError: what is wrong, and where.
    """
    wrong = _wrong_inputs(node, before) or _wrong_codes(own.codes)
    given = [before[name].codes for name in node.inputs] if wrong is None else []
    wrong = (
        wrong
        or _wrong_move(node, own, given)
        or _wrong_weights(node, own)
        or _wrong_rescale(node, own)
        or _wrong_table(node, own, given)
    )
    if wrong is not None:
        raise ModelError(f"node {node.name!r} has {wrong}")


def _wrong_inputs(node: Node, before: Mapping[str, NodeIntegers]) -> str | None:
    if isinstance(node.operation, Input) != (not before):
        return "an input of the network that is not its first node"
    if node.name in before:
        return "the name of another one"
    unknown = [name for name in node.inputs if name not in before]
    if unknown:
        return f"an input {unknown[0]!r} that is not before it"
    count = INPUTS[type(node.operation)]
    if len(node.inputs) != count and (count is not None or not node.inputs):
        return f"{len(node.inputs)} inputs"
    return None


def _wrong_codes(codes: Codes) -> str | None:
    if not MIN_ACTIVATION_BITS <= codes.bits <= MAX_ACTIVATION_BITS:
        return f"codes of {codes.bits} bits"
    if not codes.qmin <= codes.low <= codes.high <= codes.qmax:
        return f"limits {codes.low} to {codes.high} that {codes.bits} bits do not hold"
    return None


def _wrong_move(node: Node, own: NodeIntegers, given: list[Codes]) -> str | None:
    if not node.moves:
        return None
    zero = [0] if isinstance(node.operation, Pad | Mask) else []
    low, high = min(zero + [c.low for c in given]), max(zero + [c.high for c in given])
    if own.codes.low > low or own.codes.high < high:
        return f"limits narrower than its inputs' {low} to {high}"
    tile = node.operation.tile if isinstance(node.operation, Mask) else None
    if tile is not None and (tile.ndim != 3 or not bool(((tile == 0) | (tile == 1)).all())):
        return "a mask that is not of zeros and ones"
    return None


def _wrong_weights(node: Node, own: NodeIntegers) -> str | None:
    weights = own.weights
    if weights is None:
        return None
    if weights.bits not in range(MIN_BITS, MAX_BITS + 1) or weights.bias_bits not in BIAS_BITS:
        return f"weights of {weights.bits} or biases of {weights.bias_bits} bits"
    if _outside(weights.codes, weights.bits) or _outside(weights.bias, weights.bias_bits):
        return "weights or biases that its widths do not hold"
    operation, shape = node.operation, tuple(weights.codes.shape)
    convolution = isinstance(operation, Conv | ConvTranspose)
    if len(shape) != (4 if convolution else 2):
        return f"weights of shape {shape}"
    channels = shape[0]
    if isinstance(operation, Conv | ConvTranspose) and shape[0] % operation.groups:
        return f"{shape[0]} channels in {operation.groups} groups"
    if isinstance(operation, ConvTranspose):
        channels = shape[1] * operation.groups
    if isinstance(operation, Conv) and isinstance(operation.padding, str):
        return f"padding {operation.padding!r}"
    if tuple(weights.bias.shape) != (channels,):
        return f"biases of shape {tuple(weights.bias.shape)} for {channels} channels"
    return None


def _outside(values: Tensor, bits: int) -> bool:
    return int(values.min()) < -(1 << (bits - 1)) or int(values.max()) >= 1 << (bits - 1)


def _wrong_rescale(node: Node, own: NodeIntegers) -> str | None:
    rescale = own.rescale
    computes = own.weights is not None or isinstance(node.operation, Add | Multiply | Requantize)
    if (rescale is None) == computes:
        return "no multipliers and shifts" if computes else "multipliers and shifts to no end"
    if rescale is None:
        return None
    multiplier, shift = rescale.multiplier, rescale.shift
    rows = 2 if isinstance(node.operation, Add) else 1
    columns = (1,) if own.weights is None else (1, len(own.weights.bias))
    shapes = [((rows, c), (c,)) for c in columns]
    if (tuple(multiplier.shape), tuple(shift.shape)) not in shapes:
        return f"multipliers and shifts of {tuple(multiplier.shape)} and {tuple(shift.shape)}"
    if int(shift.min()) < 1 or int(shift.max()) > MAX_SHIFT:
        return f"shifts that are not from 1 to {MAX_SHIFT}"
    subtracts = isinstance(node.operation, Add) and node.operation.sign < 0
    positive = multiplier * multiplier.new_tensor([[1], [-1]]) if subtracts else multiplier
    if int(positive.min()) < 0 or int(positive.max()) >= 1 << MULTIPLIER_BITS:
        return f"multipliers beyond {MULTIPLIER_BITS} bits"
    return None


def _wrong_table(node: Node, own: NodeIntegers, given: list[Codes]) -> str | None:
    if (own.table is None) == isinstance(node.operation, Table):
        return "no table" if own.table is None else "a table to no end"
    if own.table is None:
        return None
    if tuple(own.table.shape) != (given[0].high - given[0].low + 1,):
        return f"a table of {tuple(own.table.shape)} entries"
    if int(own.table.min()) < own.codes.low or int(own.table.max()) > own.codes.high:
        return "table entries beyond its limits"
    return None
