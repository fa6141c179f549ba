"""Shapes of all tensors of an integer network, without computing any."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization.graph.execution import apply_move, apply_weight
from quantisp.quantization.graph.nodes import Input, Node
from quantisp.quantization.integer import IntegerNetwork, NodeIntegers

__all__ = ["check_sample_size", "input_channels", "size_step", "tensor_shapes"]

Shape = tuple[int, ...]
MOST_CHANNELS = 1024
# What networks fold by, and sizes that are multiples of all of it.
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
PROBES = (192, 384)


def tensor_shapes(network: IntegerNetwork, shape: Shape) -> Mapping[str, Shape]:
    """The shape of each node's tensor, by its name.

    Args:
        network: of any size.
        shape: of its input: n, c, h, w.

    Raises:
        ModelError: a node that cannot work on that size.
    """
    size = shape[2], shape[3]
    values: dict[str, Tensor] = {}
    for node, own in network:
        if isinstance(node.operation, Input):
            values[node.name] = torch.empty(shape, device="meta")
            continue
        inputs = [values[name] for name in node.inputs]
        try:
            values[node.name] = _shaped(node, own, inputs, size)
        except (RuntimeError, IndexError, ValueError) as error:
            raise ModelError(
                f"expected a size that {node.name!r} at {node.where} can work on, found an input "
                f"of {shape[1]}x{size[0]}x{size[1]} ({str(error).splitlines()[0][:120]}): choose "
                "whole folds"
            ) from error
    return {name: tuple(value.shape) for name, value in values.items()}


def _shaped(node: Node, own: NodeIntegers, inputs: list[Tensor], size: tuple[int, int]) -> Tensor:
    if own.weights is not None:
        weight = torch.empty(own.weights.codes.shape, device="meta")
        return apply_weight(node.operation, inputs[0], weight, None)
    if len(inputs) == 2 and not node.moves and inputs[0].shape != inputs[1].shape:
        raise ValueError(f"inputs of {tuple(inputs[0].shape)} and {tuple(inputs[1].shape)}")
    return apply_move(node.operation, inputs, size) if node.moves else inputs[0]


def runs_at(network: IntegerNetwork, shape: Shape) -> bool:
    """Whether the network runs at a size."""
    if network.graph.size not in (None, shape[2:]):
        return False
    try:
        return all(min(found) > 0 for found in tensor_shapes(network, shape).values())
    except ModelError:
        return False


def input_channels(network: IntegerNetwork) -> int:
    """How many channels the network's input has.

    Raises:
        ModelError: it runs with no number of them.
    """
    sizes = [network.graph.size] if network.graph.size else [(px, px) for px in PROBES]
    for channels in range(1, MOST_CHANNELS):
        if any(runs_at(network, (1, channels, *size)) for size in sizes):
            return channels
    raise ModelError(
        f"expected a network that takes pictures of up to {MOST_CHANNELS} channels, found one "
        "whose nodes fit no number of them: write it again"
    )


def size_step(network: IntegerNetwork, channels: int) -> int:
    """What heights and widths have to be multiples of, of a network of any size."""
    for step in STEPS:
        sizes = [px + step * k for px in PROBES[:1] for k in (0, 1, 5)]
        if all(runs_at(network, (1, channels, px, px)) for px in sizes):
            return step
    return PROBES[0]


def check_sample_size(network: IntegerNetwork, shape: Shape) -> None:
    """Refuse an input that the network does not run at.

    Raises:
        ModelError: of another size or number of channels.
    """
    size = network.graph.size
    if size not in (None, shape[2:]):
        raise ModelError(
            f"expected an input of {size[0]}x{size[1]} px, the only size that the network runs at, "
            f"found {shape[2]}x{shape[3]}: give a crop of that size"
        )
    if not runs_at(network, shape):
        step = size_step(network, shape[1])
        raise ModelError(
            f"expected an input of multiples of {step} px, as the network needs it, found "
            f"{shape[2]}x{shape[3]}: give another --crop or --size"
        )
