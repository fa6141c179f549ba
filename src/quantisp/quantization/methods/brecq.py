"""BRECQ: the rounding of all layers of a block is learned together, on what the block gives.

Source: Li, Gong, Tan, Yang, Hu, Zhang, Yu, Wang, Gu, "BRECQ: Pushing the limit of post-training
quantization by block reconstruction", ICLR 2021: block after block in the order of use, with the
inputs that the quantized network gives it and the outputs of the float one, AdaRound's gates, and
errors weighted by the squared gradient of the loss (its diagonal Fisher matrix). Restoration has no
labels here and the float network's loss is at its least, so the gradient is that of a random
projection of the output, whose mean square is the diagonal of the Gauss-Newton matrix; it is
averaged over each channel. A block is the smallest module that holds two or more layers to round,
such as DePhaseNet's residual blocks and attention gates; a layer outside of any is one by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight, spread_scale
from quantisp.quantization.methods.adaround import SoftCodes
from quantisp.quantization.network import NetworkTask, RoundedNetwork
from quantisp.quantization.statistics import count_calls, first_inputs
from quantisp.quantization.watching import beside, watch

__all__ = ["find_blocks", "round_blocks"]

STEPS = 400
BATCH = 2
RATE = 3e-2
REGULARISER = 20.0


def round_blocks(task: NetworkTask) -> RoundedNetwork:
    """Scales of least squared error, then block after block; see ``NetworkMethod``."""
    # What a block gives for more inputs would take many times the time and memory.
    task = replace(task, inputs=first_inputs(task.inputs))
    found = task.round_by(task.model, "mse", [], lambda _done, _total: None)
    blocks = find_blocks(task.model, task.inputs[0], task.owners())
    weights = _sensitivity(task, list(blocks))
    for done, block in enumerate(blocks, start=1):
        codes = task.checkpoints.remembered(
            f"block {block}",
            partial(_round_block, task, found, block, blocks[block], weights[block]),
        )
        new = {name: replace(found.weights[name], codes=codes[name]) for name in blocks[block]}
        found = found.with_weights(new, {})
        task.report(done, len(blocks))
    return found


def find_blocks(network: nn.Module, x: Tensor, names: Sequence[str]) -> dict[str, list[str]]:
    """The layers of each block, by the block's name, in the order of use.

    Args:
        network: its modules are the candidates, but for itself.
        x: an input of the network.
        names: of the layers.
    """
    order = list(count_calls(network, x, names))
    parents = {above: None for name in order for above in _above(name)}
    calls = watch(network, list(parents), x)
    whole = {
        module: [name for name in order if name.startswith(f"{module}.")]
        for module, seen in calls.items()
        if len(seen) == 1 and seen[0].taken is not None and seen[0].given is not None
    }
    blocks: dict[str, list[str]] = {}
    for name in order:
        candidates = (a for a in _above(name) if len(whole.get(a, ())) > 1)
        block = next(candidates, name)
        # A module around another block is none: its other layers are by themselves.
        if any(_above(other)[0] != block for other in whole.get(block, ())):
            block = name
        blocks.setdefault(block, []).append(name)
    return blocks


def _above(name: str) -> list[str]:
    """The modules around a layer, from the inside, without the network; the layer if none."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)] or [name]


def _round_block(
    task: NetworkTask, start: RoundedNetwork, block: str, names: Sequence[str], weights: Tensor
) -> dict[str, Tensor]:
    """The codes of a block's layers."""
    module = start.network.get_submodule(block)
    soft = {name: _soft(task, start, name) for name in names}
    optimizer = torch.optim.Adam([codes.logits for codes in soft.values()], lr=RATE)
    generator = torch.Generator().manual_seed(2 * task.seed)
    pairs = _pairs(task, start, block)
    count = sum(codes.floor.numel() for codes in soft.values())
    unit = _mean_error(module, pairs, weights)
    for step in range(STEPS):
        x, wanted = pairs[int(torch.randint(len(pairs), (1,), generator=generator))]
        chosen = torch.randperm(len(x), generator=generator)[:BATCH].to(x.device)
        tensors = {
            f"{name[len(block) + 1 :]}.weight".lstrip("."): codes.codes()
            * _spread(start.weights[name], codes.floor)
            for name, codes in soft.items()
        }
        given = functional_call(module, tensors, (x[chosen],))
        error = (weights * (given - wanted[chosen]).square()).mean() / unit
        undecided = torch.stack([codes.undecided(step / STEPS) for codes in soft.values()]).sum()
        loss = error + REGULARISER * undecided / count
        optimizer.zero_grad()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()
    return {name: codes.rounded().to(torch.int32).cpu() for name, codes in soft.items()}


def _soft(task: NetworkTask, start: RoundedNetwork, name: str) -> SoftCodes:
    weight = task.model.get_submodule(name).get_parameter("weight").detach()
    return SoftCodes(weight / _spread(start.weights[name], weight), task.formats[name])


def _spread(weight: QuantizedWeight, like: Tensor) -> Tensor:
    return spread_scale(weight.scale.to(like.device), like, weight.axis, weight.groups)


def _pairs(task: NetworkTask, start: RoundedNetwork, block: str) -> list[tuple[Tensor, Tensor]]:
    """What the quantized network gives the block, and what the float one makes of its own."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for x in task.inputs:
        taken = watch(start.network, [block], x)[block]
        given = watch(task.model, [block], x)[block]
        for before, after in zip(taken, given, strict=True):
            if before.taken is None or after.given is None:
                raise RunError(f"expected one tensor into and from {block!r}, found others")
            pairs.append((before.taken, after.given))
    return pairs


@torch.no_grad()
def _mean_error(
    module: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]], weights: Tensor
) -> float:
    """What rounding to nearest leaves: the unit of the error in the descent."""
    errors = [(weights * (module(x) - y).square()).mean() for x, y in pairs]
    return max(float(torch.stack(errors).mean()), torch.finfo(torch.float32).tiny)


def _sensitivity(task: NetworkTask, blocks: Sequence[str]) -> dict[str, Tensor]:
    """The mean squared gradient of each channel of a block's output, for a random projection."""
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(2 * task.seed + 1)
    for x in task.inputs:
        probes: dict[str, list[Tensor]] = {name: [] for name in blocks}
        hooks = [
            task.model.get_submodule(name).register_forward_hook(_probe(probes[name]))
            for name in blocks
        ]
        try:
            output = task.model(beside(task.model, x))
        finally:
            for hook in hooks:
                hook.remove()
        projection = torch.randn(output.shape, generator=generator).to(output.device)
        (output * projection).sum().backward()
        for name, added in probes.items():
            axis = 1 if added[0].ndim == 4 else -1
            rest = [dim for dim in range(added[0].ndim) if dim != axis % added[0].ndim]
            for probe in added:
                if probe.grad is not None:
                    squared = probe.grad.square().mean(dim=rest, keepdim=True)
                    sums[name] = sums.get(name, 0.0) + squared
    return {name: value / value.mean().clamp(min=1e-30) for name, value in sums.items()}


def _probe(added: list[Tensor]) -> Callable[[nn.Module, object, Tensor], Tensor]:
    """A hook that adds zeros whose gradient is that of the output."""

    def hook(_: nn.Module, __: object, given: Tensor) -> Tensor:
        added.append(torch.zeros_like(given, requires_grad=True))
        return given + added[-1]

    return hook
