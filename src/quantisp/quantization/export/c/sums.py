"""How sums of products are made in C.

Inner loops add up in int32, in a form that compilers know as dot products. Whether sums fit follows
from the weights, as in ``integer.bounds``: whole ones, or parts of them, or parts of sums of bytes
of the input (``low + 256 * high``).
"""

from __future__ import annotations

from dataclasses import dataclass

from quantisp.quantization.export.c.instances import INT32, ctype
from quantisp.quantization.graph.nodes import Node
from quantisp.quantization.integer import Codes, Weights
from quantisp.quantization.integer.bounds import channel_bounds

__all__ = ["BLOCK", "TILE", "Sums", "choose_sums", "store_lines"]

TILE = 8
"""Px whose sums are made at once."""
BLOCK = 32
"""Rows of operands are filled up to multiples of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """How sums of products are made.

    Args:
        operand, weight: types of what is multiplied.
        kind: ``int32`` where the whole sum fits, else ``int64``.
        limbs: of each input, 1 or 2.
        part: how many blocks of operands are added up in int32.
        zero: what is added to each input, and taken from the biases.
    """

    operand: str
    weight: str
    kind: str
    limbs: int = 1
    part: int = 1
    zero: int = 0


def choose_sums(node: Node, weights: Weights, given: Codes, *, depthwise: bool) -> Sums:
    """The cheapest way that is exact.

    Args:
        node: a layer.
        weights: of it.
        given: the codes of its input.
        depthwise: each channel has a kernel of its own.
    """
    codes = weights.codes
    largest, heaviest = max(-given.low, given.high), int(codes.abs().max())
    wide = "int8_t" if heaviest < 1 << 7 else "int16_t"
    in_bytes = int(codes.min()) >= -(1 << 7) and int(codes.max()) < 1 << 7
    source = ctype(given)

    def fits(greatest: int) -> bool:
        _, up = channel_bounds(node, codes.abs(), 0, greatest)
        return int((up + weights.bias.abs()).max()) < INT32

    if depthwise:
        return Sums(operand=source, weight=wide, kind="int32_t" if fits(largest) else "int64_t")
    if in_bytes and source in ("uint8_t", "int8_t") and fits(2 * 255):
        zero = 128 if source == "int8_t" else 0
        return Sums(operand="byte_operand", weight="byte_weight", kind="int32_t", zero=zero)
    held = given.low >= -(1 << 15) and given.high < 1 << 15
    if held and fits(largest):
        return Sums(operand="int16_t", weight="int16_t", kind="int32_t")
    part = (INT32 - 1) // (BLOCK * max(largest, 1) * max(heaviest, 1))
    if held and part:
        return Sums(operand="int16_t", weight="int16_t", kind="int64_t", part=part)
    part = (INT32 - 1) // (BLOCK * 255 * max(heaviest, 1))
    return Sums(operand="int16_t", weight="int16_t", kind="int64_t", limbs=2, part=part)


def store_lines(sums: Sums) -> dict[str, str]:
    """How an input becomes an operand, or two; at k + i of a row, or at i."""
    if sums.limbs == 1:
        plus = f" + {sums.zero}" if sums.zero else ""
        store, clear = (
            f"row[{{at}}] = ({sums.operand})({{value}}{plus});",
            f"row[{{at}}] = {sums.zero};",
        )
    else:
        high = "row[TILE * l->blocks * BLOCK + {at}]"
        store = (
            "const int32_t value = {value}, below = (int32_t)((uint32_t)value & 255);\n"
            "                    row[{at}] = (int16_t)below;\n"
            f"                    {high} = (int16_t)((value - below) / 256);"
        )
        clear = f"row[{{at}}] = 0;\n                    {high} = 0;"
    return {
        "STORE": store.format(value="from[i]", at="k + i"),
        "STORETAIL": store.format(value="from[i * s.c]", at="i"),
        "CLEAR": clear.format(at="k + i"),
        "CLEARTAIL": clear.format(at="i"),
    }
