"""A quantized network to be trained, and back: quantization-aware fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from quantisp.errors import ModelError, PlanError, SettingError
from quantisp.quantization.activations.simulation import SimulatedNetwork
from quantisp.quantization.activations.trainable import TrainableActivations
from quantisp.quantization.affine import QuantizedWeight, spread_scale, weight_scale
from quantisp.quantization.bfloat16 import in_bfloat16
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.frozen_codes import FrozenCodes
from quantisp.quantization.graph.capture import run_padded
from quantisp.quantization.layers import find_layers
from quantisp.quantization.lsq import LearnedScale
from quantisp.quantization.model import QuantizedModel, verify_codes
from quantisp.quantization.straight_through import AbsoluteMaximum
from quantisp.quantization.weight_quantizer import WeightQuantizer

__all__ = ["FINE_TUNING", "STRAIGHT_THROUGH", "TrainableModel"]

# How weights are quantized while they are trained: one after the other, or all from the first step
# on, with gradients that pass the rounding.
STRAIGHT_THROUGH = ("lsq", "plain")
FINE_TUNING = ("incremental", *STRAIGHT_THROUGH)
UNIT_BITS = 4
# How many times as fast as other parameters weights in such units, and scales, move: at a learning
# rate of 1e-6, a step moves a code of 4 bits by 1e-3, and a scale by 5e-5 of itself.
CODE_RATE, SCALE_RATE = 1e3, 5e1


class TrainableModel(nn.Module):
    """A quantized network whose weights, scales and biases can be trained.

    ``network`` holds what is trained: of layers that are quantized, their codes as real numbers, in
    units of a code of 4 bits whatever the width, so that one step of an optimizer is as large a
    part of the range of every channel and width. Each forward pass runs it with the
    weights that the rounded codes stand for, so that the running mean of a trainer is a quantized
    network, too. With ``lsq`` it begins as exactly the network that was quantized; ``plain`` keeps
    the codes of channels that use the last one, and rounds others anew. With ``incremental`` it
    begins as the float network, codes are put in the place of one layer after the other
    (:meth:`freeze`), and at some time activations are quantized, too (:meth:`join_activations`).

    Where activations are in integers, the captured graph is run in place of the network, with a
    quantizer wherever the integers have one.

    Args:
        start: where training begins; it is not changed.
        form: ``lsq`` learns the scales; ``plain`` takes the absolute maximum of each weight;
            ``incremental`` rounds one layer after the other, and learns the scales of those.
        floats: the float network that ``start`` was made from; ``incremental`` begins with its
            weights.

    Attributes:
        network: with what is trained; everything in it has gradients.
        activations: the quantizers of feature maps; None where those are float.
        float32_layers, scale_parameters, code_parameters, rates: for the trainer: what must stay in
            float32, which parameters are scales, or codes, and which move faster, and by how
            many times.
        bfloat16_layers: of ``network``; these multiply in bfloat16 where gradients are wanted.
        pattern: the CFA of the network, or None where it names none.

    Raises:
        SettingError: no such form, or scales that are powers of two of each other.
        ModelError: nothing is quantized.
        PlanError: a transposed convolution of groups has scales per channel.
    """

    def __init__(
        self, start: QuantizedModel, form: str, *, floats: nn.Module | None = None
    ) -> None:
        super().__init__()
        _check(start, form, floats)
        self.form = form
        self.plan = start.plan
        # The codes of the incremental form are to come.
        self.decisions = start.decisions if floats is None else ()
        first = start.network if floats is None else floats
        self.network = copy.deepcopy(first).requires_grad_(True)
        layers = find_layers(self.network)
        # Layers that share a weight share its quantizer.
        owners: dict[int, str] = {}
        self._owner = {
            name: owners.setdefault(id(layers[name].weight), name) for name in start.codes
        }
        self._names = tuple(dict.fromkeys(self._owner.values()))
        self.quantizers = nn.ModuleList(_quantizer(start, name, form) for name in self._names)
        self.activations: TrainableActivations | None = None
        if start.activations is not None:
            self.activations = TrainableActivations(
                start.activations,
                start.network,
                start.plan.activations,
                learned=form != "plain",
                corrected=floats is None,
            )
        self.joined: Tensor
        if self.activations is not None:
            self.register_buffer("joined", torch.tensor(floats is None))
        self._units = tuple(f"unit_{index}" for index in range(len(self._names)))
        for name, unit in zip(self._names, self._units, strict=True):
            scale, weight = start.scales[name], self._master(name)
            # Powers of two, so that codes, scales and weights stay what they are to the last bit.
            codes = 2.0 ** (start.formats[name].bits - UNIT_BITS)
            if form == "incremental":
                value = (scale.mean() * codes).log2().round().exp2()
                weight.data.div_(value.to(weight.device))
            else:
                axis = layers[name].output_axis if scale.ndim else None
                value = spread_scale(scale, weight, axis, layers[name].scale_groups) * codes
                weight.data.copy_(start.codes[name] / codes)
            self.register_buffer(unit, value.to(weight.device), persistent=False)
        self.float32_layers = tuple(
            f"network.{name}" for name in getattr(start.network, "float32_layers", ())
        )
        self.scale_parameters = tuple(
            f"quantizers.{index}.{name}"
            for index, quantizer in enumerate(self._quantizers().values())
            for name in quantizer.scale_parameters
        )
        if self.activations is not None:
            self.scale_parameters += tuple(
                f"activations.{name}" for name in self.activations.scale_parameters
            )
        weights = tuple(f"network.{_weight_of(name)}" for name in self._names)
        self.rates = dict.fromkeys(weights, CODE_RATE)
        self.rates |= dict.fromkeys(self.scale_parameters, SCALE_RATE)
        self.code_parameters = weights
        if form == "incremental":
            # Until they are codes, weights are moved as those of a float network are.
            self.code_parameters = ()
            self.rates |= self._other_rates()
        self.bfloat16_layers: tuple[str, ...] = ()
        self.pattern = start.pattern
        self.train(start.training)

    def forward(self, mosaic: Float[Tensor, "*input"]) -> Float[Tensor, "*output"]:
        """The output of the network with the weights that its codes stand for."""
        weights = {name: q(self._weight(name)) for name, q in self._quantizers().items()}
        activations = self.activations
        if activations is not None and self.has_joined:
            layers = self._layers(weights)
            return run_padded(self.network, lambda x: activations(x, layers), mosaic)
        named = {_weight_of(name): weight for name, weight in weights.items()}
        fast = self.bfloat16_layers if torch.is_grad_enabled() else ()
        with in_bfloat16(self.network, fast):
            return functional_call(self.network, named, (mosaic,))

    def train(self, mode: bool = True) -> TrainableModel:
        """As of every module; but the network of the incremental form stays in evaluation mode.

        What it approaches are outputs in that mode.
        """
        super().train(mode)
        if self.form == "incremental":
            self.network.eval()
        return self

    @property
    def has_joined(self) -> bool:
        """Whether all activations that are to be are quantized by now."""
        return self.activations is None or bool(self.joined)

    @torch.no_grad()
    def join_activations(self, calibrated: SimulatedNetwork) -> None:
        """Quantize activations from now on, in the incremental form.

        Args:
            calibrated: the same network with activations as planned, for their scales.
        """
        if self.activations is None or self.form != "incremental":
            raise SettingError(
                "expected the incremental form, with bits for activations, found another one"
            )
        self.activations.begin_at(calibrated)
        self.joined.fill_(True)

    @property
    def free(self) -> tuple[str, ...]:
        """The layers of the incremental form whose weights are still in float."""
        waiting = [
            name
            for name, quantizer in self._quantizers().items()
            if isinstance(quantizer, FrozenCodes) and not quantizer.frozen
        ]
        return tuple(waiting)

    @torch.no_grad()
    def freeze(
        self, weights: Mapping[str, QuantizedWeight], biases: Mapping[str, Tensor | None]
    ) -> None:
        """Put codes in the place of these layers' weights, in the incremental form.

        Args:
            weights: by the name of the layer; of several that share a weight, the first of them.
            biases: that go with them, or None where there is none.
        """
        quantizers = self._quantizers()
        for name, weight in weights.items():
            quantizer = quantizers[name]
            if not isinstance(quantizer, FrozenCodes):
                raise SettingError(
                    f"expected the incremental form to round layers in turn, found {self.form!r}"
                )
            quantizer.freeze(weight)
            bias = biases[name]
            if bias is not None:
                self.network.get_submodule(name).get_parameter("bias").copy_(bias)

    @torch.no_grad()
    def quantized(self) -> QuantizedModel:
        """The quantized network as it is now.

        Its output is the same to the last bit where activations are float; else up to the 16 bits
        of multipliers and the rounding of biases, which now and then change a code by one.

        Raises:
            RunError: codes or scales are not sound, as after a loss that went astray.
        """
        found = {name: q.quantized(self._weight(name)) for name, q in self._quantizers().items()}
        network = copy.deepcopy(self.network)
        for name, weight in found.items():
            parameter = network.get_submodule(name).get_parameter("weight")
            parameter.copy_(weight.dequantize())
            parameter.requires_grad_(False)
        weights = {name: found[owner] for name, owner in self._owner.items()}
        simulated = None
        if self.activations is not None:
            layers = self._layers({name: weight.dequantize() for name, weight in found.items()})
            simulated = self.activations.simulated(layers, weights)
            simulated = simulated.to(next(network.parameters()).device)
        finished = QuantizedModel(
            network,
            plan=self.plan,
            weights=weights,
            decisions=(*self.decisions, f"{self.form}: fine-tuned"),
            activations=simulated,
        )
        verify_codes(finished)
        return finished

    def network_now(self) -> nn.Module:
        """A copy of the network with the weights that a forward pass uses."""
        network = copy.deepcopy(self.network).requires_grad_(False)
        with torch.no_grad():
            for name, quantizer in self._quantizers().items():
                weight = network.get_submodule(name).get_parameter("weight")
                weight.copy_(quantizer(self._weight(name)))
        return network

    def _layers(self, weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Weight and bias of each layer."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name in find_layers(self.network):
            own = dict(self.network.get_submodule(name).named_parameters(recurse=False))
            if "weight" in own:
                weight = weights.get(self._owner.get(name, name), own["weight"])
                found[name] = weight, own.get("bias")
        return found

    def _weight(self, name: str) -> Tensor:
        unit = self.get_buffer(self._units[self._names.index(name)])
        return self._master(name) * unit

    def _quantizers(self) -> Mapping[str, WeightQuantizer]:
        return dict(zip(self._names, self.quantizers, strict=True))  # pyright: ignore[reportReturnType]

    def _master(self, name: str) -> Tensor:
        return self.network.get_submodule(name).get_parameter("weight")

    def _other_rates(self) -> dict[str, float]:
        """Layers that stay in float move like the others, and biases as fast as their weights."""
        units = dict(zip(self._names, self._units, strict=True))
        found: dict[str, float] = {}
        for name, layer in find_layers(self.network).items():
            own = dict(layer.module.named_parameters(recurse=False))
            if name in self._owner:
                unit = float(self.get_buffer(units[self._owner[name]]))
            else:
                unit = float(weight_scale(layer.weight.detach(), IntFormat(bits=UNIT_BITS)))
            moved = {"bias"} if name in self._owner else {"weight", "bias"}
            for parameter in moved & own.keys():
                found[f"network.{name}.{parameter}" if name else f"network.{parameter}"] = (
                    CODE_RATE * unit
                )
        return found


def _check(start: QuantizedModel, form: str, floats: nn.Module | None) -> None:
    if form not in FINE_TUNING:
        raise SettingError(
            f"expected a form of fine-tuning among {', '.join(FINE_TUNING)}, found {form!r}: "
            "choose one of them"
        )
    if not start.codes:
        raise ModelError(
            "expected a network with quantized layers to fine-tune, found only float ones: "
            "plan some with weight_bits"
        )
    if start.plan.quantizes_activations and start.plan.activations.power_of_two:
        raise SettingError(
            "expected scales that can be learned, found a plan whose scales are powers of two "
            "of each other: set power_of_two to false"
        )
    if start.plan.activations.accumulator_bits is not None:
        raise SettingError(
            "expected weights that are free to move, found a plan whose accumulators have "
            f"{start.plan.activations.accumulator_bits} bits: set accumulator_bits to null"
        )
    if (form == "incremental") != (floats is not None):
        raise SettingError(
            "expected the float network for the incremental form, and for no other: pass or "
            "leave out floats"
        )


def _weight_of(name: str) -> str:
    return f"{name}.weight" if name else "weight"


def _quantizer(start: QuantizedModel, name: str, form: str) -> WeightQuantizer:
    scale, int_format = start.scales[name], start.formats[name]
    rounding = start.plan.for_layer(name).rounding
    layer = find_layers(start.network)[name]
    axis = layer.output_axis if scale.ndim else None
    if form == "incremental":
        return FrozenCodes(
            scale,
            layer.weight,
            groups=layer.scale_groups,
            int_format=int_format,
            rounding=rounding,
            axis=axis,
        )
    if axis is not None and layer.scale_groups > 1:
        raise PlanError(
            f"expected layers whose channels lie along one axis, {name!r} is a transposed "
            "convolution of groups: plan it per tensor"
        )
    if form == "lsq":
        return LearnedScale(scale, int_format=int_format, rounding=rounding, axis=axis)
    return AbsoluteMaximum(int_format=int_format, rounding=rounding, axis=axis)
