"""Codes in memory, and nodes without a layer: the input, moves, sums, products and tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantisp.errors import ModelError, RunError
from quantisp.quantization.activations.tensors import round_in_place
from quantisp.quantization.graph.execution import Picture, apply_move
from quantisp.quantization.graph.nodes import Multiply, Node
from quantisp.quantization.integer import kernels
from quantisp.quantization.integer.network import Codes, NodeIntegers

__all__ = ["by_element", "code_dtype", "encoded", "flat", "laid_out", "last_axis", "moved"]


def encoded(x: Tensor, codes: Codes, *, even: int) -> Tensor:
    """The network's input on its grid, in float64: its quotients are exact there."""
    if bool(torch.isnan(x).any()):
        raise RunError("expected numbers as the network's input, found NaN: check the picture")
    quotients = x.double().mul_(float(codes.qmax))
    rounded = round_in_place(quotients, "half_even" if even else "half_up")
    return laid_out(rounded.clamp_(codes.low, codes.high).to(code_dtype(codes)))


def moved(node: Node, codes: Codes, inputs: list[Tensor], size: Picture) -> Tensor:
    """The codes of a node that only moves them.

    Raises:
        ModelError: the picture's size does not suit it.
    """
    dtype = code_dtype(codes)
    try:
        result = apply_move(node.operation, [x.to(dtype) for x in inputs], size)
    except RuntimeError as error:
        raise ModelError(
            f"expected a size that {node.name!r} at {node.where} can work on, found an input of "
            f"{size[0]}x{size[1]} px: pad it to whole folds ({str(error).splitlines()[0][:120]})"
        ) from error
    return laid_out(result)


def by_element(
    own: NodeIntegers,
    table: Any,
    inputs: list[Tensor],
    out: Tensor,
    lowest: int,
    node: Node,
    even: int,
) -> None:
    """Sums, products, tables and changes of scale, code by code in the memory's own order."""
    target = flat(out)
    given = [flat(x) for x in inputs]
    if table is not None:
        kernels.in_parts(
            len(target), lambda p: kernels.look_up(given[0][p], table, lowest, target[p])
        )
        return
    if own.rescale is None:
        raise ModelError(f"expected multipliers and shifts of node {node.name!r}, found none")
    multipliers = own.rescale.multiplier[:, 0].tolist()
    ends = (int(own.rescale.shift[0]), even, own.codes.low, own.codes.high)
    if isinstance(node.operation, Multiply):
        kernels.in_parts(
            len(target),
            lambda p: kernels.multiply(given[0][p], given[1][p], *multipliers, *ends, target[p]),
        )
        return
    # A change of scale is a sum with nothing.
    if len(given) == 1:
        given, multipliers = [given[0], given[0]], [multipliers[0], 0]
    kernels.in_parts(
        len(target), lambda p: kernels.add(given[0][p], given[1][p], *multipliers, *ends, target[p])
    )


def code_dtype(codes: Codes) -> torch.dtype:
    """The narrowest that holds them."""
    low, high = min(codes.low, 0), max(codes.high, 0)
    for dtype in (torch.uint8, torch.int8, torch.int16):
        held = torch.iinfo(dtype)
        if held.min <= low and high <= held.max:
            return dtype
    return torch.int32


def laid_out(x: Tensor) -> Tensor:
    """Channels last, in memory without gaps."""
    if x.ndim != 4:
        return x.contiguous()
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def last_axis(x: Tensor, swap: bool) -> Tensor:
    """Channels as the last axis."""
    return x.permute(0, 2, 3, 1) if swap else x


def flat(x: Tensor) -> Any:
    """The memory as numpy's one dimension."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(-1).numpy()
