"""Layers on integers that are kept in floats: products with weights, a bias, and one rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.errors import SettingError
from quantisp.quantization.activations.settings import ActivationSettings
from quantisp.quantization.activations.steps import Quantizers, RescalingStep
from quantisp.quantization.activations.tensors import round_in_place
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.graph.execution import Picture, apply_weight
from quantisp.quantization.graph.nodes import Linear, Node

__all__ = ["WeightStep"]


class WeightStep(RescalingStep):
    """A convolution or a matrix product.

    Args:
        node, inputs, settings: as for ``Step``.
        weight: its codes and scale, or in float.
        bias: in float; one for each output channel.

    Attributes:
        weight: codes, or in float.
        bias: integers, or in float, as float64.
    """

    def __init__(
        self,
        node: Node,
        inputs: Quantizers,
        settings: ActivationSettings,
        *,
        weight: QuantizedWeight | Tensor,
        bias: Tensor | None,
    ) -> None:
        super().__init__(node, inputs, settings)
        quantized = isinstance(weight, QuantizedWeight)
        codes = weight.codes.float() if isinstance(weight, QuantizedWeight) else weight.float()
        scale = weight.scale if isinstance(weight, QuantizedWeight) else torch.ones(())
        self.weight: Tensor
        self.bias: Tensor
        self.weight_scale: Tensor
        self.quantized_weight = quantized
        self.register_buffer("weight", codes.clone(), persistent=False)
        self.register_buffer("weight_scale", scale.double().clone(), persistent=False)
        real_bias = torch.zeros(1) if bias is None else bias.detach()
        self.real_bias = real_bias.double().clone()
        self.register_buffer("bias", self._bias(), persistent=False)

    @property
    def in_integers(self) -> bool:
        """Whether the accumulator holds integers."""
        return super().in_integers and self.quantized_weight

    def scales(self) -> Float[Tensor, "*inputs_channels"]:
        """What one in the accumulator, or in an input, stands for, as float64."""
        return (super().scales()[0] * self.weight_scale.cpu())[None]

    def move_bias(self, by: Float[Tensor, " channels"]) -> None:
        """Add to the bias of each channel."""
        self.real_bias = self.real_bias + by.double()
        self.bias = self._bias()

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._limited(self.unlimited(inputs))

    def unlimited(self, inputs: Sequence[Tensor]) -> Tensor:
        """As ``real``, without the limit."""
        accumulator = self._accumulator(inputs)
        return accumulator.mul_(self._spread(self.scales()[0]).to(accumulator))

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        accumulator = self._accumulator(inputs)
        return self._encoded(accumulator.mul_(self._spread(self.ratio[0]).to(accumulator)))

    def _accumulator(self, inputs: Sequence[Tensor]) -> Tensor:
        x = inputs[0]
        product = apply_weight(self.node.operation, x, self.weight.to(x.dtype), None)
        return product.add_(self._spread(self.bias).to(product))

    def _bias(self) -> Tensor:
        bias = self.real_bias / self.scales()[0]
        if not self.in_integers:
            return bias
        codes = round_in_place(bias, "half_up")
        largest, most = float(codes.abs().max()), 2.0 ** (self.settings.bias_bits - 1)
        if largest >= most:
            raise SettingError(
                f"expected biases within {self.settings.bias_bits} bits, that of layer "
                f"{self.node.layer!r} is {largest:.3g} steps of the accumulator: give the plan's "
                "activations more bias_bits, or plan narrower formats"
            )
        return codes

    @property
    def channel_axis(self) -> int:
        """Of the output channels in its result."""
        return -1 if isinstance(self.node.operation, Linear) else -3

    def _spread(self, channels: Tensor) -> Tensor:
        """One number, or one for each channel, beside a feature map."""
        return channels.reshape(-1, *(1,) * (-1 - self.channel_axis))
