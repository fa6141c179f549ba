"""How much the network's output feels errors of a layer's outputs: the second Kronecker factor.

An error D of a layer's weight changes the network's output by J D x at each place, where x is what
comes into the layer, and J how the output follows what comes out of it. Its mean square is taken
for tr(G D H D^T), with H the second moments of x and G those of the columns of J. H is measured; G
is then what fits best, by the likelihood of normally distributed gradients, whose covariance G and
H make. Gradients are those of the output in random directions, each of one input by itself.

Sources: Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate
curvature", ICML 2015 (the factors); Tseng, Sun and De Sa, "Model-preserving adaptive rounding",
arXiv 2505.22988, section 4 (gradients of whole inputs, so that what adds up or cancels over the
places counts); Dutilleul, "The MLE algorithm for the matrix normal distribution", 1999 (given one
factor, the other).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import RunError
from quantisp.quantization.matrices import as_matrix
from quantisp.quantization.methods.gptq import damped
from quantisp.quantization.statistics import LayerStatistics, first_inputs, float_statistics
from quantisp.quantization.watching import beside

__all__ = ["output_curvatures"]

# Gradients: three times as many change nothing that is seen.
PROBES = 96
# Added to the diagonal of the inputs' moments before they are inverted, as a share of its mean.
DAMPING = 0.01


def output_curvatures(
    network: nn.Module,
    names: Sequence[str],
    inputs: Sequence[Float[Tensor, "*_"]],
    moments: Mapping[str, LayerStatistics] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Float[Tensor, "groups rows rows"]]:
    """The factor of each layer's outputs, in float64 on the CPU, but for a common factor.

    Args:
        network: the float network; it is not changed.
        names: of layers that it uses.
        inputs: network inputs, at least one.
        moments: of the inputs of these layers in this network, from ``first_inputs``, where they
            are known; None measures them.
        report: called with the number of gradients found, and of all.

    Raises:
        ModelError: the network does not use one of the layers.
        RunError: a gradient is not finite.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    layers = {name: network.get_submodule(name) for name in names}
    moments = moments or float_statistics(network, names, first_inputs(inputs))
    inverses = {name: _inverse(moments[name].centred().gram) for name in names}
    weights = [layer.get_parameter("weight").requires_grad_() for layer in layers.values()]
    found: dict[str, Tensor] = {}
    draw = torch.Generator().manual_seed(0)
    probes = itertools.islice(itertools.cycle(_each(inputs)), PROBES)
    for done, x in enumerate(probes, start=1):
        with torch.enable_grad():
            output = network(beside(network, x))
            signs = torch.randint(0, 2, output.shape, generator=draw) * 2.0 - 1.0
            along = (output * signs.to(output)).sum() / math.sqrt(output.numel())
            found_gradients = torch.autograd.grad(along, weights, allow_unused=True)
        # None for a weight that the output does not depend on, which the annotation does not say.
        gradients = cast("tuple[Tensor | None, ...]", found_gradients)
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            if gradient is None:
                continue
            matrix = as_matrix(layer, gradient).cpu()
            seen = (matrix @ inverses[name] @ matrix.mT).double()
            found[name] = found[name] + seen if name in found else seen
        if report is not None:
            report(done, PROBES)
    for name, layer in layers.items():
        rows = as_matrix(layer, layer.get_parameter("weight")).shape[:2]
        found.setdefault(name, torch.zeros(*rows, rows[1], dtype=torch.float64))
        if not bool(torch.isfinite(found[name]).all()):
            raise RunError(f"expected finite gradients of layer {name!r}: check the network")
    return found


def _each(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x[index : index + 1] for x in inputs for index in range(len(x))]


def _inverse(gram: Float[Tensor, "groups k k"]) -> Float[Tensor, "groups k k"]:
    return torch.cholesky_inverse(torch.linalg.cholesky(damped(gram, DAMPING))).float()
