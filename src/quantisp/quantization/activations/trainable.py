"""Feature maps that are quantized while the network is trained, exactly where the integers are.

Values stay real numbers: each tensor that has a quantizer is rounded to it, so that the network
sees what the network in integers does, up to the 16 bits of multipliers and the rounding of biases.

``lsq`` learns the scales: with x a value, s the scale, and Q_N, Q_P its least and greatest code,
``s * round(clip(x / s, Q_N, Q_P))`` passes gradients to x where it is not clipped, and to s the
sum of ``round(x / s) - x / s`` there, and of the code where it is clipped, times
1 / sqrt(N Q_P), where N counts the values of one picture. ``plain`` lets each scale follow the
running mean of the largest value.

Sources: Esser, McKinstry, Bablani, Appuswamy, Modha, "Learned step size quantization", ICLR 2020
(eq. 1 to 5); Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018, section 3.1 (``plain``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.activations.assembling import assemble
from quantisp.quantization.activations.settings import ActivationSettings, TieRule
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.activations.tensors import TensorQuantizer, round_in_place
from quantisp.quantization.activations.weight_steps import WeightStep
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.graph.execution import apply_move, apply_weight, check_size, compute
from quantisp.quantization.graph.nodes import Clamp, Node
from quantisp.quantization.weight_quantizer import LEAST_RATIO

__all__ = ["TrainableActivations"]

# Of the distance to the largest value of a batch, that a scale of the plain form goes in a step.
FOLLOWS = 0.01

# Weight, and bias if there is one, of each layer.
Parameters = Mapping[str, tuple[Tensor, Tensor | None]]


class TrainableActivations(nn.Module):
    """A network's graph with quantizers whose scales are trained.

    Args:
        start: the calibrated network in integers, whose graph, scales and corrected biases these
            begin with; it is not changed.
        network: that the graph is of, for its biases.
        settings: the tie rule, and the width of biases.
        learned: scales are parameters, or follow the values (``plain``).
        corrected: biases are corrected as in ``start``; False where its codes are not used.

    Attributes:
        scale_parameters: the names of the parameters that are scales.
    """

    def __init__(
        self,
        start: SimulatedNetwork,
        network: nn.Module,
        settings: ActivationSettings,
        *,
        learned: bool,
        corrected: bool = True,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.learned = learned
        self._placement = start.placement
        self._last_uses = start.graph.last_uses()
        groups = start.placement.groups
        self._start = {name: start.quantizers[name] for name in groups}
        # The grids of input and output are given.
        self._moving = tuple(name for name, g in groups.items() if g.bits and not g.unit)
        scales = [q.scale for name in self._moving if (q := self._start[name]) is not None]
        self.first_scale: Tensor
        self.register_buffer("first_scale", torch.tensor(scales, dtype=torch.float64))
        ratio = torch.ones(len(scales))
        self.ratio: Tensor
        if learned:
            self.ratio = nn.Parameter(ratio)
        else:
            self.register_buffer("ratio", ratio)
        self.scale_parameters = ("ratio",) if learned and scales else ()
        self._corrected: dict[str, str] = {}
        layers = dict(network.named_modules())
        for step in start.steps:
            if corrected and isinstance(step, WeightStep):
                self._add_correction(step, layers[step.node.layer or ""])

    def forward(self, x: Float[Tensor, "n c h w"], layers: Parameters) -> Tensor:
        """The output, in real numbers.

        Args:
            x: real numbers, as the graph takes them.
            layers: weight, rounded already where it is to be, and bias of each layer.
        """
        graph = self._placement.graph
        size = check_size(graph, x)
        scales = dict(zip(self._moving, self._scales().float().unbind(), strict=True))
        values: dict[str, Tensor] = {}
        for node in graph.nodes:
            inputs = [values[name] for name in node.inputs] or [x]
            if node.moves:
                values[node.name] = apply_move(node.operation, inputs, size)
            else:
                group = self._placement.group_of[node.name]
                if node.layer is None:
                    value = compute(node, inputs, None, size)
                else:
                    value = self._layer(node, inputs[0], *layers[node.layer])
                values[node.name] = self._rounded(value, group, scales)
            for name in self._last_uses[node.name]:
                del values[name]
        return values[graph.output]

    @torch.no_grad()
    def begin_at(self, calibrated: SimulatedNetwork) -> None:
        """Take the scales of the same graph, calibrated anew."""
        scales = [q.scale for name in self._moving if (q := calibrated.quantizers[name])]
        self.first_scale.copy_(self.first_scale.new_tensor(scales))
        self.ratio.fill_(1.0)

    @torch.no_grad()
    def simulated(
        self, layers: Parameters, weights: Mapping[str, QuantizedWeight]
    ) -> SimulatedNetwork:
        """The network in integers as it is now.

        Args:
            layers: weight and bias of each layer.
            weights: codes and scales of those that have some.

        Raises:
            SettingError: a bias that does not fit.
            RunError: scales that no multiplier brings together.
        """
        moved = dict(zip(self._moving, self._scales().tolist(), strict=True))
        quantizers: dict[str, TensorQuantizer | None] = {
            name: replace(q, scale=moved.get(name, q.scale)) if q is not None else None
            for name, q in self._start.items()
        }
        nodes = [node for node in self._placement.graph.nodes if node.layer is not None]
        found = {node.name: self._bias(node, layers[node.layer or ""][1]) for node in nodes}
        biases = {name: bias.detach().cpu() for name, bias in found.items() if bias is not None}
        used = {
            name: weights.get(name, weight.detach().cpu()) for name, (weight, _) in layers.items()
        }
        return assemble(self._placement, quantizers, used, biases, self.settings)

    def _add_correction(self, step: WeightStep, layer: nn.Module) -> None:
        """What calibration added to a layer's bias, which belongs to one of its uses alone."""
        own = dict(layer.named_parameters(recurse=False)).get("bias")
        correction = step.real_bias if own is None else step.real_bias - own.detach().cpu().double()
        if not bool(correction.any()):
            return
        name = f"correction_{len(self._corrected)}"
        self.register_buffer(name, correction.float())
        self._corrected[step.node.name] = name

    def _bias(self, node: Node, bias: Tensor | None) -> Tensor | None:
        if node.name not in self._corrected:
            return bias
        correction = self.get_buffer(self._corrected[node.name])
        return correction if bias is None else bias + correction

    def _layer(self, node: Node, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        value = apply_weight(node.operation, x, weight, self._bias(node, bias))
        clamp: Clamp = getattr(node.operation, "clamp", Clamp())
        # An unsigned quantizer is a ReLU already.
        group = self._placement.groups[self._placement.group_of[node.name]]
        is_relu = clamp == Clamp(lower=0.0) and group.bits is not None and not group.signed
        return value if clamp == Clamp() or is_relu else value.clamp(clamp.lower, clamp.upper)

    def _scales(self) -> Float[Tensor, " groups"]:
        return self.first_scale * self.ratio.clamp(min=LEAST_RATIO).double()

    def _rounded(self, x: Tensor, name: str, scales: dict[str, Tensor]) -> Tensor:
        quantizer = self._start[name]
        if quantizer is None:
            return x
        scale = scales.get(name)
        if scale is None:
            scale = x.new_tensor(quantizer.scale, dtype=torch.float32)
        elif self.training and not self.learned:
            scale = scales[name] = self._follow(name, x.detach(), quantizer)
        return _FakeQuantize.apply(  # pyright: ignore[reportReturnType]
            x, scale, quantizer.qmin, quantizer.qmax, self.settings.tie_rule
        )

    @torch.no_grad()
    def _follow(self, name: str, x: Tensor, quantizer: TensorQuantizer) -> Tensor:
        """Of several tensors that share a quantizer each moves it, and is rounded by what it is."""
        index = self._moving.index(name)
        low, high = torch.aminmax(x)
        wanted = high / quantizer.qmax
        if quantizer.qmin:
            wanted = torch.maximum(wanted, low / quantizer.qmin)
        ratio = (wanted / self.first_scale[index]).to(self.ratio)
        self.ratio[index].lerp_(ratio, FOLLOWS)
        return self._scales()[index].float()


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, x: Tensor, scale: Tensor, qmin: int, qmax: int, tie_rule: TieRule
    ) -> Tensor:
        rounded = round_in_place(x / scale, tie_rule).clamp_(qmin, qmax).mul_(scale)
        ctx.save_for_backward(x, rounded, scale)
        ctx.limits = qmin, qmax
        return rounded

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None, None]:
        x, rounded, scale = ctx.saved_tensors
        qmin, qmax = ctx.limits
        inside = (x > qmin * scale).logical_and_(x < qmax * scale)
        slope = None
        if ctx.needs_input_grad[1]:
            apart = rounded.addcmul(x, inside, value=-1.0).mul_(gradient)
            factor = 1.0 / math.sqrt(x[0].numel() * qmax)
            slope = apart.sum() / scale * factor
        return gradient * inside, slope, None, None, None
