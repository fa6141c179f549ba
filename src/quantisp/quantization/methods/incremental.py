"""Incremental rounding: layer by layer, while all weights still in float make up for it.

The layers whose rounding the network's output feels most are rounded first, each by itself, by
K-best, and the others by QuantEase. After each, everything that is still free descends on the
difference of the output from the float network's: the weights in float, the biases, and the scales
of the layers that are rounded already. What a layer cannot make up for itself, because few inputs
reach it or nothing comes after it, the many insensitive layers can; they are rounded last, when
hardly anything is lost.

Sources: Zhou et al., "Incremental network quantization", ICLR 2017 (a part is rounded, the rest
makes up for it, over and over; theirs are weights by magnitude, with labels); Li et al., "BRECQ",
ICLR 2021 (descending on the float network's output instead); Jordan et al., "Muon: An optimizer for
hidden layers in neural networks", 2024, scaled as in Liu et al., "Muon is scalable for LLM
training", arXiv 2502.16982. What is ours are the order, by each layer's error at the output, and
the loss: the mean logarithm of each input's squared error, for quality is measured in decibels, and
a picture with much detail must not outweigh all others. No ground truth is looked at.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight, spread_scale, weight_scale
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import bias_of, find_layers
from quantisp.quantization.network import NetworkTask, RoundedNetwork, squared_errors
from quantisp.quantization.stages import ends_of, method_of, stages_of

__all__ = ["round_incrementally", "rounded_incrementally"]

# Of all stages together; in the last one every layer is rounded, and scales and biases are left.
STEPS = 1000
# Inputs in one step.
BATCH = 2
# Steps of the weights and biases in codes of their layer, and of the logarithm of scales.
CODE_RATE, SCALE_RATE = 0.01, 5e-4


def round_incrementally(task: NetworkTask) -> RoundedNetwork:
    """Round a network; the argument is ``NetworkMethod``'s."""
    return rounded_incrementally(task, task.model)


def rounded_incrementally(task: NetworkTask, base: nn.Module) -> RoundedNetwork:
    """The same, from a network that gives what ``task.model`` gives by other weights.

    Raises:
        RunError: the outputs are not finite.
    """
    # Rounds the layers of other methods, too.
    start = task.round_by(base, "rtn", [], _ignore)
    owners = task.owners()
    network = copy.deepcopy(start.network).eval().requires_grad_(False)
    floats = find_layers(base)
    with torch.no_grad():
        for name in owners:
            network.get_submodule(name).get_parameter("weight").copy_(floats[name].weight)
    stages = stages_of(task.errors_alone(base, owners))
    descent = _Descent(task, network, owners)
    for layers, end in zip(stages, ends_of(STEPS, stages), strict=True):
        method = method_of(floats, layers)
        walked = task.round_by(descent.network(), method, task.inputs, _ignore, layers)
        descent.freeze({name: walked.weights[name] for name in layers})
        descent.run(end - descent.steps)
    return start.with_weights(descent.weights(), descent.biases())


def _ignore(_done: int, _total: int) -> None:
    """No report: the stages report their steps."""


class _Descent:
    """The network on its way: layers in float, rounded ones, and what descends.

    Args:
        task: whose float network gives the outputs to approach.
        network: with the weights to begin with; it is not changed.
        owners: the layers to round, one alone of those that share a weight.
    """

    def __init__(self, task: NetworkTask, network: nn.Module, owners: Sequence[str]) -> None:
        self.task = task
        self.base = nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
        self.free = {
            name: _FreeLayer(self.base.get_submodule(name), task.formats[name]) for name in owners
        }
        self.rounded: dict[str, _RoundedLayer] = {}
        self.bias = {
            name: bias.detach().clone().requires_grad_()
            for name in owners
            if (bias := bias_of(self.base.get_submodule(name))) is not None
        }
        self.steps = 0
        device = next(self.base.parameters()).device
        reference = nn.utils.convert_conv2d_weight_memory_format(
            copy.deepcopy(task.model), torch.channels_last
        )
        with torch.no_grad():
            self.pairs = [(x.to(device), reference(x.to(device))) for x in task.inputs]
        self.draw = torch.Generator().manual_seed(task.seed)

    def network(self) -> nn.Module:
        """A copy with all weights and biases as they are now."""
        found = copy.deepcopy(self.base)
        with torch.no_grad():
            for name, value in self._tensors().items():
                found.get_parameter(name).copy_(value)
        return found

    def freeze(self, weights: Mapping[str, QuantizedWeight]) -> None:
        """These layers are rounded from now on: their codes stay."""
        device = next(self.base.parameters()).device
        for name, weight in weights.items():
            del self.free[name]
            self.rounded[name] = _RoundedLayer(weight, device)

    def run(self, steps: int) -> None:
        """Descend, with a rate that falls to nothing.

        Raises:
            RunError: the outputs are not finite.
        """
        optimizers = self._optimizers()
        rates = [[group["lr"] for group in each.param_groups] for each in optimizers]
        for step in range(steps):
            inputs, wanted = self._batch()
            given = functional_call(self.base, self._tensors(), (inputs,))
            loss = squared_errors(given, wanted).log().mean()
            if not bool(torch.isfinite(loss)):
                raise RunError(
                    "expected finite outputs on the calibration inputs: check the network, or plan "
                    "wider formats"
                )
            share = 0.5 * (1.0 + math.cos(math.pi * step / steps))
            for optimizer, own in zip(optimizers, rates, strict=True):
                optimizer.zero_grad()
                for group, rate in zip(optimizer.param_groups, own, strict=True):
                    group["lr"] = rate * share
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            for optimizer in optimizers:
                optimizer.step()
            self.steps += 1
            self.task.report(self.steps, STEPS)

    def weights(self) -> dict[str, QuantizedWeight]:
        """Codes and scales of the layers that are rounded."""
        return {name: layer.result() for name, layer in self.rounded.items()}

    def biases(self) -> dict[str, Tensor]:
        """Of the layers that have one."""
        return {name: bias.detach() for name, bias in self.bias.items()}

    def _tensors(self) -> dict[str, Tensor]:
        """By the names of the network's parameters."""
        weights = {f"{name}.weight": layer.weight() for name, layer in self._layers()}
        return weights | {f"{name}.bias": bias for name, bias in self.bias.items()}

    def _layers(self) -> Iterator[tuple[str, _FreeLayer | _RoundedLayer]]:
        yield from self.free.items()
        yield from self.rounded.items()

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        matrices = [layer for layer in self.free.values() if layer.is_matrix]
        others = [layer for layer in self.free.values() if not layer.is_matrix]
        scales = [layer.log_scale for layer in self.rounded.values()]
        # A bias weighs as much as its layer's weights, whether these are rounded yet or not.
        rate = {name: layer.rate for name, layer in self._layers()}
        adam = [{"params": [layer.value], "lr": layer.rate} for layer in others]
        adam += [{"params": [bias], "lr": rate[name]} for name, bias in self.bias.items()]
        adam += [{"params": scales, "lr": SCALE_RATE}] if scales else []
        found: list[torch.optim.Optimizer] = []
        if adam:
            found.append(torch.optim.Adam(adam, betas=(0.9, 0.99)))
        if matrices:
            muon = [{"params": [layer.value], "lr": layer.rate} for layer in matrices]
            found.append(torch.optim.Muon(muon, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        return found

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Some inputs of one size and their outputs."""
        sizes = torch.tensor([float(len(inputs)) for inputs, _ in self.pairs])
        inputs, wanted = self.pairs[int(torch.multinomial(sizes, 1, generator=self.draw))]
        chosen = torch.randperm(len(inputs), generator=self.draw)[:BATCH].to(inputs.device)
        return inputs[chosen], wanted[chosen]


class _FreeLayer:
    """A weight that is still in float: what descends is a matrix wherever it can be one.

    Attributes:
        value: (out, kh kw in) of a convolution, whose memory has that order; else the weight.
        rate: of its steps, in units of the weight.
    """

    def __init__(self, layer: nn.Module, int_format: IntFormat) -> None:
        weight = layer.get_parameter("weight").detach()
        self.is_matrix = weight.ndim in (2, 4) and getattr(layer, "groups", 1) == 1
        self.rate = CODE_RATE * float(weight_scale(weight, int_format, 0).mean())
        if self.is_matrix and weight.ndim == 4:
            moved = weight.permute(0, 2, 3, 1)
            self._moved = moved.shape
            self.value = moved.reshape(len(weight), -1).clone().requires_grad_()
        else:
            self._moved = None
            self.value = weight.clone().requires_grad_()

    def weight(self) -> Tensor:
        """In the layer's own shape."""
        if self._moved is None:
            return self.value
        return self.value.view(self._moved).permute(0, 3, 1, 2)


class _RoundedLayer:
    """Codes that stay, and the logarithm of their scales, which descends."""

    def __init__(self, weight: QuantizedWeight, device: torch.device) -> None:
        self._axis, self._groups = weight.axis, weight.groups
        self._codes = weight.codes
        self._values = weight.codes.to(device, torch.float32)
        self.log_scale = weight.scale.to(device).log().requires_grad_()
        self.rate = CODE_RATE * float(weight.scale.mean())

    def weight(self) -> Tensor:
        """Codes times scale."""
        spread = spread_scale(self.log_scale.exp(), self._values, self._axis, self._groups)
        return self._values * spread

    def result(self) -> QuantizedWeight:
        return QuantizedWeight(
            codes=self._codes,
            scale=self.log_scale.detach().exp().cpu(),
            axis=self._axis,
            groups=self._groups,
        )
