"""Incremental rounding: layer by layer, while all weights still in float make up for it.

The layers whose rounding the network's output feels most are rounded first, each by itself, by
K-best, and the others by YAQA. After each, everything that is still free descends on the
difference of the output from the float network's: the weights in float, the biases, and the scales
of the layers that are rounded already. What a layer cannot make up for itself, because few inputs
reach it or nothing comes after it, the many insensitive layers can; they are rounded last, when
hardly anything is lost.

The descent sees mixtures of two inputs each, for which the float network gives outputs as well as
for any other input: few pictures make many. Each is seen twice in the mean, for its output is known
then.

Sources: Zhou et al., "Incremental network quantization", ICLR 2017 (a part is rounded, the rest
makes up for it, over and over; theirs are weights by magnitude, with labels); Li et al., "BRECQ",
ICLR 2021 (descending on the float network's output instead); Beyer et al., "Knowledge distillation:
A good teacher is patient and consistent", CVPR 2022 (mixtures); for the descent see
:mod:`quantisp.quantization.natural`. What is ours are the order, by each layer's error at the
output, and the loss: the mean logarithm of each input's squared error, for quality is measured in
decibels, and a picture with much detail must not outweigh all others. No ground truth is looked at.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight, spread_scale, weight_scale
from quantisp.quantization.bfloat16 import harmless, in_bfloat16
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import bias_of, find_layers
from quantisp.quantization.natural import Metric, WhitenedMuon, metrics_of
from quantisp.quantization.network import (
    NetworkTask,
    Report,
    RoundedNetwork,
    squared_errors,
)
from quantisp.quantization.stages import ends_of, grouped, method_of, stages_of
from quantisp.quantization.statistics import LayerStatistics, first_inputs, float_statistics

__all__ = ["round_incrementally", "rounded_incrementally"]

# Of all stages together; in the last one every layer is rounded, and scales and biases are left.
STEPS = 900
# Mixtures in one step.
BATCH = 2
# So often a mixture is seen, in the mean: the float network has to be run once for it.
SEEN = 2
# Seen again are mixtures of so many steps, the latest with new ones.
KEPT = 64
# In steps, what it takes to tell what one layer does to the output, and to round it.
TOLD, ROUNDED = 1, 3
# The share of the time that the curvatures take.
MEASURING = 0.1
# Steps of weights and biases in codes of their layer, and of the logarithm of scales.
CODE_RATE, BIAS_RATE, SCALE_RATE = 0.005, 0.01, 5e-4


def round_incrementally(task: NetworkTask) -> RoundedNetwork:
    """Round a network; the argument is ``NetworkMethod``'s."""
    moments = float_statistics(task.model, task.owners(), first_inputs(task.inputs))
    measuring, rounding = task.part(0.0, MEASURING), task.part(MEASURING, 1.0)
    curvatures = output_curvatures(
        task.model, task.owners(), task.inputs, moments, measuring.report
    )
    return rounded_incrementally(rounding, task.model, curvatures, moments)


def rounded_incrementally(
    task: NetworkTask,
    base: nn.Module,
    curvatures: Mapping[str, Tensor],
    moments: Mapping[str, LayerStatistics],
) -> RoundedNetwork:
    """The same, from a network that gives what ``task.model`` gives by other weights.

    Args:
        task: what is to be rounded.
        base: that network; it is not changed.
        curvatures: of its layers (:func:`quantisp.quantization.curvature.output_curvatures`).
        moments: of its layers' inputs.

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
    everything = STEPS + (TOLD + ROUNDED) * len(owners)

    def part(begin: int, size: int) -> Report:
        return task.part(begin / everything, (begin + size) / everything).report

    done = TOLD * len(owners)
    errors = task.errors_alone(base, owners, part(0, done))
    stages = stages_of(errors)
    descent = _Descent(
        task,
        network,
        metrics_of(curvatures, moments),
        harmless(task.model, grouped(stages), errors, task.inputs),
    )
    for stage, end in zip(stages, ends_of(STEPS, stages), strict=True):
        layers, method = stage.layers, method_of(floats, stage)
        report = part(done, ROUNDED * len(layers))
        # What they do to each other is made up for by what follows.
        walked = task.round_by(
            descent.network(), method, task.inputs, report, layers, curvatures, apart=True
        )
        done += ROUNDED * len(layers)
        descent.freeze({name: walked.weights[name] for name in layers})
        descent.correct({name: bias_of(walked.network.get_submodule(name)) for name in layers})
        steps = end - descent.steps
        descent.run(steps, part(done, steps))
        done += steps
    return start.with_weights(descent.weights(), descent.biases())


def _ignore(_done: int, _total: int) -> None:
    """No report: it takes a moment."""


class _Descent:
    """The network on its way: layers in float, rounded ones, and what descends.

    Args:
        task: whose float network gives the outputs to approach.
        network: with the weights to begin with; it is not changed.
        metrics: of the layers to round, one alone of those that share a weight.
        rough: layers that may multiply in bfloat16.
    """

    def __init__(
        self,
        task: NetworkTask,
        network: nn.Module,
        metrics: Mapping[str, Metric],
        rough: Sequence[str],
    ) -> None:
        self.task = task
        self.base = nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
        self.free = {
            name: _FreeLayer(self.base.get_submodule(name), task.formats[name]) for name in metrics
        }
        self.rounded: dict[str, _RoundedLayer] = {}
        self.bias = {
            name: bias.detach().clone().requires_grad_()
            for name in metrics
            if (bias := bias_of(self.base.get_submodule(name))) is not None
        }
        self.steps = 0
        device = next(self.base.parameters()).device
        self.metrics, self.rough = metrics, rough
        self.reference = nn.utils.convert_conv2d_weight_memory_format(
            copy.deepcopy(task.model), torch.channels_last
        )
        self.inputs: dict[torch.Size, list[Tensor]] = {}
        for x in task.inputs:
            self.inputs.setdefault(x.shape[1:], []).extend(x.to(device).split(1))
        self.draw = torch.Generator().manual_seed(task.seed)
        self.seen: deque[tuple[Tensor, Tensor]] = deque(maxlen=KEPT)

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

    @torch.no_grad()
    def correct(self, biases: Mapping[str, Tensor | None]) -> None:
        """These biases go with codes; where there is none, there is None."""
        for name, value in biases.items():
            if value is not None:
                self.bias[name].copy_(value)

    def run(self, steps: int, report: Report) -> None:
        """Descend, with a rate that falls to nothing; report how many of these steps are done.

        Raises:
            RunError: the outputs are not finite.
        """
        optimizers = self._optimizers()
        rates = [[group["lr"] for group in each.param_groups] for each in optimizers]
        for step in range(steps):
            inputs, wanted = self._batch()
            with in_bfloat16(self.base, self.rough):
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
            report(step + 1, steps)

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
        scales = [layer.log_scale for layer in self.rounded.values()]
        # A bias weighs as much as its layer's weights, whether these are rounded yet or not.
        code = {name: layer.code for name, layer in self._layers()}
        adam = [
            {"params": [bias], "lr": BIAS_RATE * code[name]} for name, bias in self.bias.items()
        ]
        adam += [{"params": scales, "lr": SCALE_RATE}] if scales else []
        found: list[torch.optim.Optimizer] = []
        if adam:
            found.append(torch.optim.Adam(adam, betas=(0.9, 0.99)))
        if self.free:
            layers = [
                (self.base.get_submodule(name), layer.value, self.metrics[name])
                for name, layer in self.free.items()
            ]
            rates = [CODE_RATE * layer.code for layer in self.free.values()]
            found.append(WhitenedMuon(layers, rates))
        return found

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Mixtures of inputs of one size, and the float network's outputs for them.

        They are new in one of ``SEEN`` steps, and else some that were seen of late.
        """
        if self.steps % SEEN and self.seen:
            return self.seen[int(torch.randint(len(self.seen), (), generator=self.draw))]
        alike = list(self.inputs.values())
        sizes = torch.tensor([float(len(inputs)) for inputs in alike])
        chosen = alike[int(torch.multinomial(sizes, 1, generator=self.draw))]
        mixed: list[Tensor] = []
        for _ in range(BATCH):
            one, other = torch.randint(len(chosen), (2,), generator=self.draw).tolist()
            share = float(torch.rand((), generator=self.draw))
            mixed.append(share * chosen[one] + (1.0 - share) * chosen[other])
        inputs = torch.cat(mixed)
        with torch.no_grad(), in_bfloat16(self.reference, self.rough):
            self.seen.append((inputs, self.reference(inputs)))
        return self.seen[-1]


class _FreeLayer:
    """A weight that is still in float, and one code of it."""

    def __init__(self, layer: nn.Module, int_format: IntFormat) -> None:
        weight = layer.get_parameter("weight").detach()
        self.code = float(weight_scale(weight, int_format, 0).mean())
        self.value = weight.clone().requires_grad_()

    def weight(self) -> Tensor:
        """As it is now."""
        return self.value


class _RoundedLayer:
    """Codes that stay, and the logarithm of their scales, which descends."""

    def __init__(self, weight: QuantizedWeight, device: torch.device) -> None:
        self._axis, self._groups = weight.axis, weight.groups
        self._codes = weight.codes
        self._values = weight.codes.to(device, torch.float32)
        self.log_scale = weight.scale.to(device).log().requires_grad_()
        self.code = float(weight.scale.mean())

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
