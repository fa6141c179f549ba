"""Reconstruction: all codes, scales and biases descend together on the error of the output.

Sources: Li et al., "BRECQ: Pushing the limit of post-training quantization by block
reconstruction", ICLR 2021 (fitting a part of the network to the float one's output; its largest
part is the network, which is ours); Esser et al., "Learned step size quantization", ICLR 2020
(rounding that passes the gradient, and learned scales). It begins with QuantEase's codes, so that
few steps are enough. What is ours, too, is the loss: the mean logarithm of each input's squared
error, for quality is measured in decibels, and a picture with much detail must not outweigh all
others. No ground truth is looked at.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight, spread_scale
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.network import NetworkTask, RoundedNetwork

__all__ = ["reconstruct", "reconstructed"]

STEPS = 1000
# Inputs in one step.
BATCH = 2
# Steps of Adam: in codes, in the logarithm of scales, and in units of the biases.
CODE_RATE, SCALE_RATE, BIAS_RATE = 1e-2, 5e-4, 1e-5
# Errors far below what 8 bits show count for nothing.
LEAST_ERROR = 1e-9


def reconstruct(task: NetworkTask) -> RoundedNetwork:
    """Round by QuantEase, then let everything descend; the argument is ``NetworkMethod``'s."""
    start = task.round_by(task.model, "quantease", task.inputs, task.part(0, 2).report)
    return reconstructed(task.part(1, 2), start)


def reconstructed(task: NetworkTask, start: RoundedNetwork) -> RoundedNetwork:
    """The network that the descent makes of ``start``.

    Raises:
        RunError: the outputs are not finite.
    """
    network = copy.deepcopy(start.network).eval().requires_grad_(False)
    network = nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
    layers = [
        _Layer(name, start.weights[name], task.formats[name], network) for name in task.owners()
    ]
    optimizer = torch.optim.Adam(
        [
            {"params": [layer.codes for layer in layers], "lr": CODE_RATE},
            {"params": [layer.log_scale for layer in layers], "lr": SCALE_RATE},
            {"params": [layer.bias for layer in layers if layer.bias is not None], "lr": BIAS_RATE},
        ],
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * step / STEPS))
    )
    pairs = _pairs(task, network)
    for step, (inputs, wanted) in enumerate(_batches(pairs), start=1):
        tensors: dict[str, Tensor] = {}
        for layer in layers:
            tensors |= layer.tensors()
        given = functional_call(network, tensors, (inputs,))
        errors = (given - wanted).square().flatten(1).mean(dim=1)
        loss = (errors + LEAST_ERROR).log().mean()
        if not bool(torch.isfinite(loss)):
            raise RunError(
                "expected finite outputs on the calibration inputs: check the network, or plan "
                "wider formats"
            )
        optimizer.zero_grad()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()
        schedule.step()
        task.report(step, STEPS)
    return start.with_weights(
        {layer.name: layer.result() for layer in layers},
        {layer.name: layer.bias.detach() for layer in layers if layer.bias is not None},
    )


class _Layer:
    """What descends of one layer: codes as real numbers, the logarithm of scales, the bias."""

    def __init__(
        self, name: str, weight: QuantizedWeight, int_format: IntFormat, network: nn.Module
    ) -> None:
        self.name = name
        self.axis, self.groups = weight.axis, weight.groups
        self.int_format = int_format
        owner = network.get_submodule(name)
        device = owner.get_parameter("weight").device
        self.codes = weight.codes.to(device, torch.float32).requires_grad_()
        self.log_scale = weight.scale.to(device).log().requires_grad_()
        bias = dict(owner.named_parameters(recurse=False)).get("bias")
        self.bias = None if bias is None else bias.detach().clone().requires_grad_()

    def tensors(self) -> dict[str, Tensor]:
        """By the names of the network's parameters; the gradient passes the rounding."""
        codes = self.codes.clamp(self.int_format.qmin, self.int_format.qmax)
        codes = codes + (codes.round() - codes).detach()
        weight = codes * spread_scale(self.log_scale.exp(), codes, self.axis, self.groups)
        found = {f"{self.name}.weight": weight}
        return found if self.bias is None else {**found, f"{self.name}.bias": self.bias}

    def result(self) -> QuantizedWeight:
        codes = self.codes.detach().clamp(self.int_format.qmin, self.int_format.qmax)
        return QuantizedWeight(
            codes=codes.round().to(torch.int32).cpu(),
            scale=self.log_scale.detach().exp().cpu(),
            axis=self.axis,
            groups=self.groups,
        )


def _pairs(task: NetworkTask, network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Inputs, and what the float network gives for them."""
    device = next(network.parameters()).device
    with torch.no_grad():
        return [(x.to(device), task.model(x.to(device))) for x in task.inputs]


def _batches(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Some inputs of one size and their outputs, drawn again and again."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([float(len(inputs)) for inputs, _ in pairs])
    for _ in range(STEPS):
        inputs, wanted = pairs[int(torch.multinomial(sizes, 1, generator=generator))]
        chosen = torch.randperm(len(inputs), generator=generator)[:BATCH].to(inputs.device)
        yield inputs[chosen], wanted[chosen]
