"""Incremental rounding's descent: what is in float still, biases and scales make up for rounding.

It sees mixtures of two inputs each. See :mod:`quantisp.quantization.methods.incremental`.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight, spread_scale, weight_scale
from quantisp.quantization.bfloat16 import in_bfloat16
from quantisp.quantization.checkpoints import Checkpoints, weight_from, weight_tensors
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import bias_of
from quantisp.quantization.natural import Metric, WhitenedMuon
from quantisp.quantization.network import NetworkTask, Report, squared_errors
from quantisp.quantization.stages import Stage

__all__ = ["Descent"]

# Mixtures in one step.
BATCH = 2
# So often a mixture is seen, in the mean: the float network has to be run once for it.
SEEN = 2
# Seen again are mixtures of so many steps, the latest with new ones.
KEPT = 64
# Steps of weights and biases in codes of their layer, and of the logarithm of scales.
CODE_RATE, BIAS_RATE, SCALE_RATE = 0.005, 0.01, 5e-4


class Descent:
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
        self.device = device = next(self.base.parameters()).device
        self.metrics, self.rough = metrics, rough
        self.reference = nn.utils.convert_conv2d_weight_memory_format(
            copy.deepcopy(task.model), torch.channels_last
        )
        self.inputs: dict[torch.Size, list[Tensor]] = {}
        for x in task.inputs:
            self.inputs.setdefault(x.shape[1:], []).extend(x.to(device).split(1))
        self.draw = torch.Generator().manual_seed(task.seed)
        self.seen: deque[tuple[Tensor, Tensor]] = deque(maxlen=KEPT)

    def leave(self, checkpoints: Checkpoints) -> None:
        """Keep where the descent is between two stages."""
        rounded = {
            f"{name}/{key}": value
            for name, layer in self.rounded.items()
            for key, value in layer.tensors().items()
        }
        checkpoints.put(
            "descent",
            {
                "steps": torch.tensor(self.steps),
                "draw": self.draw.get_state(),
                **{f"free {name}": layer.value for name, layer in self.free.items()},
                **rounded,
                **{f"bias {name}": bias for name, bias in self.bias.items()},
                **{f"input {count}": x for count, (x, _) in enumerate(self.seen)},
                **{f"output {count}": y for count, (_, y) in enumerate(self.seen)},
            },
        )

    @torch.no_grad()
    def take_up(self, checkpoints: Checkpoints, stages: Sequence[Stage]) -> list[Stage]:
        """Be where the descent was that was left last; the stages that are left."""
        kept = checkpoints.get("descent")
        if kept is None:
            return list(stages)
        done = [stage for stage in stages if f"{stage.layers[0]}/codes" in kept]
        for name in (name for stage in done for name in stage.layers):
            self.freeze({name: weight_from(kept, f"{name}/")})
            self.rounded[name].log_scale.copy_(kept[f"{name}/log scale"])
        for name, layer in self.free.items():
            layer.value.copy_(kept[f"free {name}"])
        for name, bias in self.bias.items():
            bias.copy_(kept[f"bias {name}"])
        count = sum(key.startswith("input ") for key in kept)
        self.seen.extend(
            (kept[f"input {n}"].to(self.device), kept[f"output {n}"].to(self.device))
            for n in range(count)
        )
        self.steps = int(kept["steps"])
        self.draw.set_state(kept["draw"])
        return list(stages[len(done) :])

    def network(self) -> nn.Module:
        """A copy with all weights and biases as they are now."""
        found = copy.deepcopy(self.base)
        with torch.no_grad():
            for name, value in self._tensors().items():
                found.get_parameter(name).copy_(value)
        return found

    def freeze(self, weights: Mapping[str, QuantizedWeight]) -> None:
        """These layers are rounded from now on: their codes stay."""
        for name, weight in weights.items():
            del self.free[name]
            self.rounded[name] = _RoundedLayer(weight, self.device)

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
        self._weight = weight
        self._values = weight.codes.to(device, torch.float32)
        self.log_scale = weight.scale.to(device).log().requires_grad_()
        self.code = float(weight.scale.mean())

    def weight(self) -> Tensor:
        """Codes times scale."""
        axis, groups = self._weight.axis, self._weight.groups
        return self._values * spread_scale(self.log_scale.exp(), self._values, axis, groups)

    def tensors(self) -> dict[str, Tensor]:
        """All that it is made of."""
        return {**weight_tensors(self._weight), "log scale": self.log_scale}

    def result(self) -> QuantizedWeight:
        """Codes, and the scale as it is now."""
        return replace(self._weight, scale=self.log_scale.detach().exp().cpu())
