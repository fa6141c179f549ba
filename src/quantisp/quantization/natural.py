"""Descent in the metric of the network's output: Muon, on weights that were whitened.

Muon's step is the longest one downhill among those of a spectral norm. In which coordinates is up
to whoever measures: here, in those in which errors of the weight count alike at the network's
output. What comes into a layer is uncorrelated and of one size there, and so is what its outputs
do; the factors of the curvature's Kronecker product say which coordinates those are. So a step goes
where errors can be made up for, instead of where inputs happen to be large. How long it is depends
on the rate alone: of each weight, the root mean square.

Sources: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024 (momentum
made orthogonal by Newton and Schulz's iteration); Liu et al., "Muon is scalable for LLM training",
arXiv 2502.16982 (the length of steps); Martens and Grosse, "Optimizing neural networks with
Kronecker-factored approximate curvature", ICML 2015, and Grosse and Martens, "A Kronecker-factored
approximate Fisher matrix for convolution layers", ICML 2016 (the metric). What is ours is their use
together. The curvature is that of the network in float, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.machine import multiplies_bfloat16
from quantisp.orthogonal import inverse_root, unit
from quantisp.quantization.matrices import as_matrix, from_matrix
from quantisp.quantization.methods.gptq import damped
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["Metric", "WhitenedMuon", "metrics_of"]

# Added to the diagonal of each factor before it is inverted, as a share of its mean.
DAMPING = 0.1
MOMENTUM = 0.95
LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """The inverses of the Cholesky factors of a layer's two moments, of norm 1, in float32.

    Args:
        outputs: of the curvature of its outputs.
        inputs: of the moments of its inputs.
    """

    outputs: Float[Tensor, "groups rows rows"]
    inputs: Float[Tensor, "groups k k"]


def metrics_of(
    curvatures: Mapping[str, Float[Tensor, "groups rows rows"]],
    moments: Mapping[str, LayerStatistics],
) -> dict[str, Metric]:
    """Of the layers whose outputs' curvatures are given.

    Args:
        curvatures: by the layer's name, as of
            :func:`quantisp.quantization.curvature.output_curvatures`.
        moments: of the inputs of these layers in the float network.
    """
    return {
        name: Metric(outputs=_whitening(curvature), inputs=_whitening(moments[name].gram))
        for name, curvature in curvatures.items()
    }


def _whitening(moments: Float[Tensor, "groups n n"]) -> Float[Tensor, "groups n n"]:
    factor = torch.linalg.cholesky(damped(moments, DAMPING))
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype)
    inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
    # Of layers that the inputs do not reach, these are huge; only their directions count.
    return (inverse / torch.linalg.matrix_norm(inverse, keepdim=True)).float()


class WhitenedMuon(torch.optim.Optimizer):
    """Descends on the weights of layers; those of one shape are moved together.

    Args:
        layers: each layer, what stands for its weight, in that shape, and its metric.
        rates: of each, the root mean square of its steps; those of a group are multiplied by its
            ``lr``, which begins as 1.
    """

    def __init__(
        self, layers: Sequence[tuple[nn.Module, Tensor, Metric]], rates: Sequence[float]
    ) -> None:
        self._of = {
            value: (layer, metric, rate)
            for (layer, value, metric), rate in zip(layers, rates, strict=True)
        }
        of_shape: dict[torch.Size, list[Tensor]] = {}
        for layer, value, _ in layers:
            of_shape.setdefault(as_matrix(layer, value.detach()).shape, []).append(value)
        super().__init__([{"params": values, "lr": 1.0} for values in of_shape.values()], {})
        # The metrics of those of each group that were moved last, in one piece.
        self._stacks: list[_Stack | None] = [None] * len(self.param_groups)

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move the weights; those without a gradient stay."""
        for index, group in enumerate(self.param_groups):
            values = [value for value in group["params"] if value.grad is not None]
            if not values:
                continue
            steps = self._stack(index, values).white(
                torch.stack([self._ahead(value) for value in values])
            )
            sizes = steps.square().mean(dim=(1, 2, 3)).sqrt().clamp(min=LEAST)
            for value, step, size in zip(values, steps, sizes.tolist(), strict=True):
                layer, _, rate = self._of[value]
                value.sub_(from_matrix(layer, step, value), alpha=group["lr"] * rate / size)

    def _stack(self, index: int, values: list[Tensor]) -> _Stack:
        """Of these weights of one group."""
        names = tuple(map(id, values))
        kept = self._stacks[index]
        if kept is None or kept.of != names:
            metrics = [self._of[value][1] for value in values]
            kept = _Stack.of_metrics(names, metrics, values[0].device)
            self._stacks[index] = kept
        return kept

    def _ahead(self, value: Tensor) -> Float[Tensor, "groups rows k"]:
        """The gradient with Nesterov's momentum."""
        gradient = cast("Tensor", value.grad)
        mean: Tensor = self.state[value].setdefault("mean", torch.zeros_like(value))
        mean.lerp_(gradient, 1.0 - MOMENTUM)
        return as_matrix(self._of[value][0], gradient.lerp(mean, MOMENTUM))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stack:
    """The metrics of weights of one shape, of which one side is the short one.

    Args:
        of: the weights, by their identity.
        is_tall: whether it is the inputs that are fewer.
        short: the factors of the short side.
        long: the squares F^T F of those of the other.
    """

    of: tuple[int, ...]
    is_tall: bool
    short: Float[Tensor, "stack groups n n"]
    long: Float[Tensor, "stack groups m m"]

    @staticmethod
    def of_metrics(of: tuple[int, ...], metrics: Sequence[Metric], device: torch.device) -> _Stack:
        outputs, inputs = (
            torch.stack(factors).to(device)
            for factors in ([m.outputs for m in metrics], [m.inputs for m in metrics])
        )
        is_tall = outputs.shape[-1] > inputs.shape[-1]
        short, long = (inputs, outputs) if is_tall else (outputs, inputs)
        # As Muon itself: a direction needs no more digits.
        dtype = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
        return _Stack(of=of, is_tall=is_tall, short=short, long=(long.mT @ long).to(dtype))

    def white(
        self, steps: Float[Tensor, "stack groups rows k"]
    ) -> Float[Tensor, "stack groups rows k"]:
        """O^T orthogonal(O S I^T) I, of gradients S, with the factors O and I.

        With X for O S I^T, that is O^T f(X X^T) O (S I^T I), where f is what makes X orthogonal:
        so there is one product alone with a large matrix.
        """
        # Gradients may be of any size, and are not what counts.
        steps = unit(steps.mT if self.is_tall else steps)
        ahead = (steps.to(self.long.dtype) @ self.long).float()
        square = self.short @ (ahead @ steps.mT) @ self.short.mT
        steps = self.short.mT @ inverse_root(square) @ self.short @ ahead
        return steps.mT if self.is_tall else steps
