"""Capturing a network with ``torch.export``."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from quantisp.errors import ModelError, QuantispError
from quantisp.quantization.graph.fusing import fuse_clamps
from quantisp.quantization.graph.lowering import lower, writes_through_views
from quantisp.quantization.graph.nodes import Graph

__all__ = ["FixesSizes", "PadsInside", "capture", "pad_inside", "run_padded"]

# PyTorch takes a dimension of 1 for one that is always 1.
LEAST_BATCH = 2


@runtime_checkable
class PadsInside(Protocol):
    """A network that lengthens its input to sizes that it can work on, and crops its output.

    Its ``forward(x)`` is ``forward_padded(pad_input(x))``, cropped at the bottom and right to as
    many px for each of the input's as before. What is captured is ``forward_padded``, so that the
    graph runs at every size.
    """

    def pad_input(self, mosaic: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """The input with more px at the bottom and right, copies of some of its own."""
        ...

    def forward_padded(self, mosaic: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """What the network does to an input that needs no more px."""
        ...


@runtime_checkable
class FixesSizes(Protocol):
    """A part of a network, such as what a program begins with, that passes some sizes alone."""

    @property
    def fixed_sizes(self) -> tuple[int | None, ...]:
        """Of (n, c, h, w), those that can have one value only; None for others."""
        ...


def pad_inside(network: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """The input as the captured graph takes it."""
    return network.pad_input(x) if isinstance(network, PadsInside) else x


def run_padded(
    network: nn.Module, run: Callable[[Tensor], Tensor], x: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n d h2 w2"]:
    """What ``run`` gives for the input as the captured graph takes it, cropped to the input."""
    padded = pad_inside(network, x)
    restored = run(padded)
    height, width = (restored.shape[a] * x.shape[a] // padded.shape[a] for a in (2, 3))
    return restored[:, :, :height, :width]


def capture(network: nn.Module, example: Float[Tensor, "n c h w"]) -> Graph:
    """The network as a graph, in evaluation mode; the network is not changed.

    Height, width and batch are dynamic where the network's own code, or the program that it was
    read from, leaves them so; where height or width are not, the graph's ``size`` is that of the
    example.

    Args:
        network: its weights in modules of the kinds that can be quantized.
        example: an input, of the batch that the network takes if it takes one only.

    Raises:
        ModelError: it cannot be captured, or does something that no node stands for.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    example = pad_inside(network, example.detach().cpu())
    fixed = _fixed_sizes(network)
    if fixed[0] is None and len(example) < LEAST_BATCH:
        example = example.expand(LEAST_BATCH, -1, -1, -1)
    program = _exported(_Whole(network), example, fixed)
    graph = fuse_clamps(lower(program, network, prefix=_Whole.PREFIX))
    return replace(graph, example=tuple(example.shape))


class _Whole(nn.Module):
    """What is captured of a network."""

    PREFIX = "network"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        network = self.network
        return network.forward_padded(x) if isinstance(network, PadsInside) else network(x)


def _fixed_sizes(network: nn.Module) -> tuple[int | None, ...]:
    """Of (n, c, h, w); what the network's own code fixes is found by torch.export."""
    found = [part.fixed_sizes for part in network.modules() if isinstance(part, FixesSizes)]
    return found[0] if found else (None,) * 4


def _exported(whole: nn.Module, example: Tensor, fixed: tuple[int | None, ...]) -> ExportedProgram:
    shapes: Any = ({axis: Dim.AUTO for axis in (0, 2, 3) if fixed[axis] is None},)
    try:
        with _quietly():
            program = torch.export.export(whole, (example.contiguous(),), dynamic_shapes=shapes)
            # What happens in place where others look on is beyond us; PyTorch needs seconds for it.
            return program.run_decompositions({}) if writes_through_views(program) else program
    # A program says itself what it takes.
    except QuantispError:
        raise
    # A network of somebody else may fail in any way, and torch.export in more.
    except Exception as error:
        raise ModelError(
            "expected a network that torch.export can capture, "
            f"{type(getattr(whole, 'network', whole)).__name__} fails "
            f"({' '.join(str(error).split())[:300]}): mend its forward, or leave activations in "
            "float"
        ) from error


@contextmanager
def _quietly() -> Generator[None]:
    """Without what torch has to say of its own deprecations and of sizes that it fixes."""
    loggers = [logging.getLogger(name) for name in ("torch._export", "torch.fx", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
