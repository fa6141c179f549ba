"""Layers of a network in bfloat16, and the rest in float32, to descend faster.

bfloat16 carries 8 significant bits. That is too little for layers through which the picture itself
passes, or which the output feels most; the products of all others make far smaller errors in it
than their rounding to a few bits does, and cost a fraction of the time on hardware that has it.
Whether that is so is measured.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.machine import multiplies_bfloat16
from quantisp.quantization.watching import beside

__all__ = ["harmless", "in_bfloat16"]

# What a descent may see of it, as a share of the squared error of what is being rounded.
SHARE = 0.01
# Enough to tell.
INPUTS = 2


@contextmanager
def in_bfloat16(network: nn.Module, names: Sequence[str]) -> Generator[None]:
    """Within the context these layers multiply in bfloat16; what they give is float32 again.

    Args:
        network: run, within the context, in float32.
        names: of layers in it.
    """
    device = next(network.parameters()).device.type
    left: list[torch.autocast] = []

    def begin(_layer: nn.Module, _inputs: object) -> None:
        left.append(torch.autocast(device, torch.bfloat16, cache_enabled=False))
        left[-1].__enter__()

    def end(_layer: nn.Module, _inputs: object, output: object) -> object:
        left.pop().__exit__(None, None, None)
        return output.float() if isinstance(output, Tensor) else output

    layers = [network.get_submodule(name) for name in names]
    hooks = [layer.register_forward_pre_hook(begin) for layer in layers]
    hooks += [layer.register_forward_hook(end, always_call=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def harmless(
    network: nn.Module,
    names: Sequence[str],
    errors: Mapping[str, float],
    inputs: Sequence[Float[Tensor, "*_"]],
) -> tuple[str, ...]:
    """These layers, if the hardware has bfloat16 and it would not be seen.

    Args:
        network: in evaluation mode.
        names: of layers that are to be rounded.
        errors: the mean squared error of the output that each layer's rounding brings.
        inputs: network inputs, some of which are looked at.

    Returns:
        All of them, or none.
    """
    if not names or not multiplies_bfloat16(next(network.parameters()).device):
        return ()
    found: list[Tensor] = []
    for x in inputs[:INPUTS]:
        given = beside(network, x)
        wanted = network(given)
        with in_bfloat16(network, names):
            found.append((network(given) - wanted).double().square().mean())
    allowed = SHARE * math.fsum(errors[name] for name in names)
    return tuple(names) if float(torch.stack(found).mean()) <= allowed else ()
