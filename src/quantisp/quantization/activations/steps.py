"""What each node does to integers that are kept in floats.

A step first is what it would give without a quantizer (``real``); once it knows its quantizer
(``fit``) it gives codes. Both take the codes of their inputs, or real values with scale 1 where an
input is in float.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import RunError
from quantisp.quantization.activations.rescaling import Rescale, choose_rescale
from quantisp.quantization.activations.settings import ActivationSettings
from quantisp.quantization.activations.tensors import TensorQuantizer, round_in_place
from quantisp.quantization.graph.execution import Picture, apply_move
from quantisp.quantization.graph.functions import apply_function
from quantisp.quantization.graph.nodes import Add, Clamp, Node, Operation, Table

__all__ = [
    "AddStep",
    "InputStep",
    "MoveStep",
    "MultiplyStep",
    "Quantizers",
    "RequantizeStep",
    "RescalingStep",
    "Step",
    "TableStep",
    "rescale_of",
]

Quantizers = Sequence[TensorQuantizer | None]


class Step(nn.Module):
    """One node.

    Args:
        node: what is to be done.
        inputs: the quantizers of its inputs; None is float.
        settings: the tie rule, and the width of biases.

    Attributes:
        quantizer: of its output, once it is fitted; None is float.
    """

    def __init__(self, node: Node, inputs: Quantizers, settings: ActivationSettings) -> None:
        super().__init__()
        self.node = node
        self.settings = settings
        self.input_quantizers = tuple(inputs)
        self.quantizer: TensorQuantizer | None = None

    @property
    def clamp(self) -> Clamp:
        """What its result is limited to."""
        return getattr(self.node.operation, "clamp", Clamp())

    @property
    def input_scales(self) -> tuple[float, ...]:
        """Of its inputs; 1 for float."""
        return tuple(1.0 if q is None else q.scale for q in self.input_quantizers)

    @property
    def least_scale(self) -> float:
        """A finer scale of its output would tell apart what cannot differ."""
        return torch.finfo(torch.float32).tiny

    def fit(self, quantizer: TensorQuantizer | None) -> None:
        """Give codes of this quantizer from now on; None is real values."""
        self.quantizer = quantizer

    def real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:
        """What it gives before it is quantized; ``size`` is that of the network's input."""
        return self._real(inputs, size)

    @abstractmethod
    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor: ...

    @abstractmethod
    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor: ...

    def forward(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:
        """Codes, or real values where it has no quantizer."""
        return self._real(inputs, size) if self.quantizer is None else self._codes(inputs, size)

    def _limited(self, x: Tensor) -> Tensor:
        clamp = self.clamp
        return x if clamp == Clamp() else x.clamp_(clamp.lower, clamp.upper)

    def _encoded(self, x: Tensor) -> Tensor:
        """Whole numbers within the quantizer and the limits, from quotients, in place."""
        quantizer = self.quantizer
        if quantizer is None:
            return x
        return round_in_place(x, self.settings.tie_rule).clamp_(*self.limits())

    def limits(self) -> tuple[int, int]:
        """The least and the greatest code that it gives: of its quantizer, and of its clamp."""
        quantizer = self.quantizer
        if quantizer is None:
            raise RunError("expected a step with a quantizer, found one in float: fit it first")
        ends = torch.tensor([self.clamp.lower, self.clamp.upper], dtype=torch.float64)
        ends = round_in_place(ends / quantizer.scale, "half_up")
        low, high = (int(v) for v in ends.clamp_(quantizer.qmin, quantizer.qmax))
        return low, high


class InputStep(Step):
    """The network's input, onto its grid."""

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return inputs[0]

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        quantizer = self.quantizer
        # The scale is one over a whole number.
        steps = 1.0 if quantizer is None else float(quantizer.qmax)
        return self._encoded(inputs[0] * steps)


class MoveStep(Step):
    """Moves codes as it would move values."""

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:
        return apply_move(self.node.operation, inputs, size)

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:
        return apply_move(self.node.operation, inputs, size)


class RescalingStep(Step):
    """A step whose accumulator is multiplied and shifted.

    Attributes:
        rescale: multipliers and shifts; None where something is in float.
    """

    def __init__(self, node: Node, inputs: Quantizers, settings: ActivationSettings) -> None:
        super().__init__(node, inputs, settings)
        self.rescale: Rescale | None = None
        self.ratio: Tensor
        self.register_buffer("ratio", torch.ones(1), persistent=False)

    def scales(self) -> Float[Tensor, "*inputs_channels"]:
        """What one in the accumulator stands for, as float64."""
        return torch.tensor(self.input_scales, dtype=torch.float64).prod(dim=0, keepdim=True)

    @property
    def in_integers(self) -> bool:
        """Whether the accumulator holds integers."""
        return None not in self.input_quantizers

    def fit(self, quantizer: TensorQuantizer | None) -> None:
        """Give codes of this quantizer from now on; None is real values."""
        super().fit(quantizer)
        if quantizer is None:
            return
        ratio = self.scales() / quantizer.scale
        if self.in_integers:
            settings = self.settings
            self.rescale = choose_rescale(
                ratio, power_of_two=settings.power_of_two, bits=settings.multiplier_bits
            )
            ratio = self.rescale.ratio()
        self.ratio = ratio

    @property
    def least_scale(self) -> float:
        """A finer scale of its output would tell apart what cannot differ."""
        return float(self.scales().max()) * 2.0**-14


class AddStep(RescalingStep):
    """A sum or a difference: both inputs come to one shift, and their sum is rounded once."""

    def scales(self) -> Float[Tensor, "*inputs_channels"]:
        """What one in the accumulator, or in an input, stands for, as float64."""
        return torch.tensor(self.input_scales, dtype=torch.float64)

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._limited(self._sum(inputs, self.scales()))

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._encoded(self._sum(inputs, self.ratio))

    def _sum(self, inputs: Sequence[Tensor], factors: Tensor) -> Tensor:
        first, second = (float(factor) for factor in factors)
        return torch.add(inputs[0] * first, inputs[1], alpha=_sign(self.node.operation) * second)


class MultiplyStep(RescalingStep):
    """A product of two tensors."""

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._limited((inputs[0] * inputs[1]).mul_(float(self.scales()[0])))

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._encoded((inputs[0] * inputs[1]).mul_(float(self.ratio[0])))


class RequantizeStep(RescalingStep):
    """The same values on another scale."""

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return inputs[0] * float(self.scales()[0])

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._encoded(inputs[0] * float(self.ratio[0]))


class TableStep(Step):
    """A function of each value: one entry for each code of its input.

    Attributes:
        table: the code for each input code, from the least one on; empty where the input is float.
    """

    def __init__(self, node: Node, inputs: Quantizers, settings: ActivationSettings) -> None:
        super().__init__(node, inputs, settings)
        self.table: Tensor
        self.register_buffer("table", torch.zeros(0), persistent=False)

    def fit(self, quantizer: TensorQuantizer | None) -> None:
        """Give codes of this quantizer from now on; None is real values."""
        super().fit(quantizer)
        given = self.input_quantizers[0]
        if quantizer is None or given is None:
            return
        codes = torch.arange(given.qmin, given.qmax + 1, dtype=torch.float64)
        self.table = self._encoded(self._function(codes * given.scale) / quantizer.scale)

    def _real(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:  # noqa: ARG002
        return self._function(inputs[0] * self.input_scales[0])

    def _codes(self, inputs: Sequence[Tensor], size: Picture) -> Tensor:
        given = self.input_quantizers[0]
        if given is None:
            scale = 1.0 if self.quantizer is None else self.quantizer.scale
            return self._encoded(self._real(inputs, size) / scale)
        index = (inputs[0] - given.qmin).to(torch.int32)
        # Looked up in one dimension, in the memory's own order.
        return self.table.to(inputs[0].dtype)[index]

    def _function(self, x: Tensor) -> Tensor:
        operation = self.node.operation
        if not isinstance(operation, Table):
            return x
        return apply_function(operation.function, operation.parameters, x)


def rescale_of(step: Step) -> Rescale | None:
    """The multipliers and shifts of a step that has some."""
    return step.rescale if isinstance(step, RescalingStep) else None


def _sign(operation: Operation) -> int:
    return operation.sign if isinstance(operation, Add) else 1
