"""A quantized network to be trained, and back: quantization-aware fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import ModelError, SettingError
from quantisp.quantization.layers import find_layers
from quantisp.quantization.lsq import LearnedScale
from quantisp.quantization.model import QuantizedModel, verify_codes
from quantisp.quantization.straight_through import AbsoluteMaximum
from quantisp.quantization.weight_quantizer import WeightQuantizer

__all__ = ["FINE_TUNING", "TrainableModel"]

# How weights are quantized while they are trained.
FINE_TUNING = ("lsq", "plain")


class TrainableModel(nn.Module):
    """A quantized network whose weights, scales and biases can be trained.

    ``network`` holds float weights to train. Each forward pass runs it with the weights that their
    codes stand for, so that the running mean of a trainer, which is over the float weights and the
    scales, is a quantized network, too. With ``lsq`` it begins as exactly the network that was
    quantized; ``plain`` keeps the codes of channels that use the last one, and rounds others anew.

    Args:
        start: where training begins; it is not changed.
        form: ``lsq`` learns the scales; ``plain`` takes the absolute maximum of each weight.

    Attributes:
        network: with the float weights, all of which have gradients.
        float32_layers, scale_parameters: for the trainer: what must stay in float32, and which
            parameters are scales.
        pattern: the CFA of the network, or None where it names none.

    Raises:
        SettingError: no such form, or activations in integers.
        ModelError: nothing is quantized.
    """

    def __init__(self, start: QuantizedModel, form: str) -> None:
        super().__init__()
        if form not in FINE_TUNING:
            raise SettingError(
                f"expected a form of fine-tuning among {', '.join(FINE_TUNING)}, found {form!r}: "
                "choose one of them"
            )
        if any(e.activation_bits for e in (start.plan.default, *start.plan.layers.values())):
            raise SettingError(
                "expected activations in float, for their scales cannot be trained, found some in "
                "integers: plan them with activation_bits None"
            )
        if not start.codes:
            raise ModelError(
                "expected a network with quantized layers to fine-tune, found only float ones: "
                "plan some with weight_bits"
            )
        self.form = form
        self.plan = start.plan
        self.decisions = start.decisions
        self.network = copy.deepcopy(start.network).requires_grad_(True)
        layers = find_layers(self.network)
        # Layers that share a weight share its quantizer.
        owners: dict[int, str] = {}
        self._owner = {
            name: owners.setdefault(id(layers[name].weight), name) for name in start.codes
        }
        self._names = tuple(dict.fromkeys(self._owner.values()))
        self.quantizers = nn.ModuleList(_quantizer(start, name, form) for name in self._names)
        self.float32_layers = tuple(
            f"network.{name}" for name in getattr(start.network, "float32_layers", ())
        )
        self.scale_parameters = tuple(
            f"quantizers.{index}.{name}"
            for index, quantizer in enumerate(self._quantizers().values())
            for name in quantizer.scale_parameters
        )
        self.pattern = start.pattern
        self.training = start.training

    def forward(self, mosaic: Float[Tensor, "*input"]) -> Float[Tensor, "*output"]:
        """The output of the network with the weights that its codes stand for."""
        weights = {
            f"{name}.weight" if name else "weight": quantizer(self._master(name))
            for name, quantizer in self._quantizers().items()
        }
        return functional_call(self.network, weights, (mosaic,))

    @torch.no_grad()
    def quantized(self) -> QuantizedModel:
        """The quantized network as it is now; its output is the same to the last bit.

        Raises:
            RunError: codes or scales are not sound, as after a loss that went astray.
        """
        found = {name: q.quantized(self._master(name)) for name, q in self._quantizers().items()}
        network = copy.deepcopy(self.network)
        for name, weight in found.items():
            parameter = network.get_submodule(name).get_parameter("weight")
            parameter.copy_(weight.dequantize())
            parameter.requires_grad_(False)
        finished = QuantizedModel(
            network,
            plan=self.plan,
            weights={name: found[owner] for name, owner in self._owner.items()},
            decisions=(*self.decisions, f"{self.form}: fine-tuned"),
        )
        verify_codes(finished)
        return finished

    def _quantizers(self) -> Mapping[str, WeightQuantizer]:
        return dict(zip(self._names, self.quantizers, strict=True))  # pyright: ignore[reportReturnType]

    def _master(self, name: str) -> Tensor:
        return self.network.get_submodule(name).get_parameter("weight")


def _quantizer(start: QuantizedModel, name: str, form: str) -> WeightQuantizer:
    scale, int_format = start.scales[name], start.formats[name]
    rounding = start.plan.for_layer(name).rounding
    axis = find_layers(start.network)[name].output_axis if scale.ndim else None
    if form == "lsq":
        return LearnedScale(scale, int_format=int_format, rounding=rounding, axis=axis)
    return AbsoluteMaximum(int_format=int_format, rounding=rounding, axis=axis)
