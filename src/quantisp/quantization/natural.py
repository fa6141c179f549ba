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

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.methods.gptq import damped
from quantisp.quantization.statistics import as_matrix, float_statistics, from_matrix

__all__ = ["Metric", "WhitenedMuon", "metrics_of"]

# Added to the diagonal of each factor before it is inverted, as a share of its mean.
DAMPING = 0.1
MOMENTUM = 0.95
# Muon's own iteration: five rounds of an odd polynomial, which brings singular values near 1.
COEFFICIENTS, ROUNDS = (3.4445, -4.7750, 2.0315), 5
LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """The inverses of the Cholesky factors of a layer's two moments, in float32.

    Args:
        outputs: of the curvature of its outputs.
        inputs: of the moments of its inputs.
    """

    outputs: Float[Tensor, "groups rows rows"]
    inputs: Float[Tensor, "groups k k"]


def metrics_of(
    network: nn.Module,
    curvatures: Mapping[str, Float[Tensor, "groups rows rows"]],
    inputs: Sequence[Float[Tensor, "*_"]],
) -> dict[str, Metric]:
    """Of the layers whose outputs' curvatures are given.

    Args:
        network: the float network.
        curvatures: by the layer's name, as of
            :func:`quantisp.quantization.curvature.output_curvatures`.
        inputs: network inputs.

    Raises:
        RunError: a layer's inputs are not finite.
    """
    moments = float_statistics(network, list(curvatures), inputs)
    return {
        name: Metric(outputs=_whitening(curvature), inputs=_whitening(moments[name].gram))
        for name, curvature in curvatures.items()
    }


def _whitening(moments: Float[Tensor, "groups n n"]) -> Float[Tensor, "groups n n"]:
    factor = torch.linalg.cholesky(damped(moments, DAMPING))
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype)
    return torch.linalg.solve_triangular(factor, unit, upper=False).float()


class WhitenedMuon(torch.optim.Optimizer):
    """Descends on the weights of layers; those of one shape are moved together.

    Args:
        layers: each layer, what stands for its weight, in that shape, and its metric.
        rates: of each, the root mean square of its steps.
    """

    def __init__(
        self, layers: Sequence[tuple[nn.Module, Tensor, Metric]], rates: Sequence[float]
    ) -> None:
        self._layers = {value: layer for layer, value, _ in layers}
        of_shape: dict[torch.Size, list[int]] = {}
        for index, (layer, value, _) in enumerate(layers):
            of_shape.setdefault(as_matrix(layer, value.detach()).shape, []).append(index)
        groups: list[dict[str, object]] = []
        for indices in of_shape.values():
            device = layers[indices[0]][1].device
            metrics = [layers[index][2] for index in indices]
            groups.append(
                {
                    "params": [layers[index][1] for index in indices],
                    "lr": 1.0,
                    "rates": [rates[index] for index in indices],
                    "outputs": torch.stack([metric.outputs for metric in metrics]).to(device),
                    "inputs": torch.stack([metric.inputs for metric in metrics]).to(device),
                }
            )
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move the weights; one without a gradient is moved by its momentum alone."""
        for group in self.param_groups:
            values: list[Tensor] = group["params"]
            outputs, inputs = group["outputs"], group["inputs"]
            steps = torch.stack([self._ahead(value) for value in values])
            steps = outputs.mT @ orthogonal(outputs @ steps @ inputs.mT) @ inputs
            sizes = steps.square().mean(dim=(1, 2, 3)).sqrt().clamp(min=LEAST)
            for value, step, size, rate in zip(
                values, steps, sizes.tolist(), group["rates"], strict=True
            ):
                moved = from_matrix(self._layers[value], step, value)
                value.sub_(moved, alpha=group["lr"] * rate / size)

    def _ahead(self, value: Tensor) -> Float[Tensor, "groups rows k"]:
        """The gradient with Nesterov's momentum."""
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        mean: Tensor = self.state[value].setdefault("mean", torch.zeros_like(value))
        mean.lerp_(gradient, 1.0 - MOMENTUM)
        return as_matrix(self._layers[value], gradient.lerp(mean, MOMENTUM))


def orthogonal(matrices: Float[Tensor, "*stack rows k"]) -> Float[Tensor, "*stack rows k"]:
    """Nearly the nearest orthogonal ones: singular values between about 0.7 and 1.2."""
    first, third, fifth = COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=LEAST)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.mT if is_tall else x
