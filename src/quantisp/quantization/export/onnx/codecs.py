"""How codes stand in a file: as integers behind QuantizeLinear, as whole floats, or QONNX's way.

Whatever computes does it in float between a ``decode`` of each input and an ``encode`` of the
result. A tensor of the network has its own name in the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from quantisp.quantization.activations.settings import TieRule
from quantisp.quantization.export.onnx.builder import GraphBuilder
from quantisp.quantization.integer.network import Codes

__all__ = ["QONNX_DOMAIN", "Codec", "IntegerCodec", "QonnxCodec", "Stored"]

QONNX_DOMAIN = "qonnx.custom_op.general"
BIAS_TYPE_BITS = 32
# OpenVINO leaves quantizers of that width out, and what they saturate with them.
UNSURE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor of the network in a file.

    Args:
        name: in the network and in the file.
        codes: its integers.
        scale: what a code of 1 stands for in the file.
    """

    name: str
    codes: Codes
    scale: float


class Codec(ABC):
    """A way to write codes.

    Args:
        builder: of the graph.
        tie_rule: of the network.
        power_of_two: whether nothing but shifts is needed, so that ties are common.
    """

    def __init__(self, builder: GraphBuilder, tie_rule: TieRule, *, power_of_two: bool) -> None:
        self.builder, self.tie_rule, self.power_of_two = builder, tie_rule, power_of_two

    @abstractmethod
    def grid(self, stored: Stored) -> float:
        """The scale on which moves and tables are cheapest for a tensor."""

    @abstractmethod
    def decode(self, stored: Stored, scale: float) -> str:
        """The codes of a tensor times a scale, as floats."""

    @abstractmethod
    def encode(self, real: str, target: Stored, scale: float) -> None:
        """Floats over a scale, rounded and limited: the tensor."""

    @abstractmethod
    def encode_moved(self, real: str, target: Stored) -> None:
        """The last node's result, whose values are codes on the tensor's ``grid``: the tensor."""

    @abstractmethod
    def encode_entries(self, real: str, target: Stored) -> None:
        """As ``encode_moved``, of what was looked up."""

    @abstractmethod
    def weight(
        self, codes: Int[np.ndarray, "*shape"], bits: int, scale: Any, axis: int | None
    ) -> str:
        """Weights as floats: codes times scale, of which there is one, or one along an axis."""

    @abstractmethod
    def bias(self, codes: Int[np.ndarray, " channels"], bits: int, scale: Any) -> str:
        """Biases as floats: codes times scale, of which there is one, or one for each."""

    def limited(self, real: str, target: Stored, scale: float) -> str:
        """Within the limits of a tensor, where its width does not limit it everywhere."""
        codes = target.codes
        if (codes.low, codes.high) == (codes.qmin, codes.qmax) and codes.bits != UNSURE_BITS:
            return real
        ends = (self.builder.floats(end * scale) for end in (codes.low, codes.high))
        return self.builder.add("Clip", real, *ends)

    def times(self, real: str, factor: float) -> str:
        """Floats times a number, which may be one."""
        if np.float32(factor) == 1:
            return real
        return self.builder.add("Mul", real, self.builder.floats(factor))


class IntegerCodec(Codec):
    """Integers behind QuantizeLinear where ONNX has the type, else Div, Round, Clip and Mul.

    A tensor is its codes: integers, or whole floats.
    """

    def grid(self, stored: Stored) -> float:
        """Whole floats are moved as they are."""
        return stored.scale if self._integer_type(stored.codes) else 1.0

    def decode(self, stored: Stored, scale: float) -> str:
        """DequantizeLinear or Mul, for each user."""
        if not self._integer_type(stored.codes):
            return self.times(stored.name, scale)
        return self.builder.add(
            "DequantizeLinear", stored.name, self.builder.floats(scale), self._zero(stored.codes)
        )

    def encode(self, real: str, target: Stored, scale: float) -> None:
        """QuantizeLinear, which rounds half to even; else as the network's ties go."""
        if not self._integer_type(target.codes):
            ends = (self.builder.floats(end) for end in (target.codes.low, target.codes.high))
            self.builder.add("Clip", self._rounded(real, scale), *ends, output=target.name)
        elif self.power_of_two and self.tie_rule == "half_up":
            # Every second sum may be a tie.
            rounded = self._rounded(real, scale)
            self._quantize(self.limited(rounded, target, 1.0), target, 1.0)
        else:
            self._quantize(self.limited(real, target, scale), target, scale)

    def encode_moved(self, real: str, target: Stored) -> None:
        """Whole floats stay what they are."""
        if self._integer_type(target.codes):
            self._quantize(real, target, target.scale)
        else:
            self.builder.name_result(real, target.name)

    def encode_entries(self, real: str, target: Stored) -> None:
        """As what was moved."""
        self.encode_moved(real, target)

    def weight(
        self, codes: Int[np.ndarray, "*shape"], bits: int, scale: Any, axis: int | None
    ) -> str:
        """INT4, INT8 or INT16 behind DequantizeLinear."""
        stored = self.builder.codes(codes, bits, "weight")
        return self._dequantized(stored, scale, axis)

    def bias(self, codes: Int[np.ndarray, " channels"], bits: int, scale: Any) -> str:
        """INT32 behind DequantizeLinear where they fit, else floats."""
        if bits > BIAS_TYPE_BITS and np.abs(codes).max() >= 1 << (BIAS_TYPE_BITS - 1):
            return self.builder.floats(codes * scale)
        stored = self.builder.codes(codes, BIAS_TYPE_BITS, "bias")
        return self._dequantized(stored, scale, 0 if np.ndim(scale) else None)

    def _rounded(self, real: str, scale: float) -> str:
        builder = self.builder
        if np.float32(scale) != 1:
            real = builder.add("Div", real, builder.floats(scale))
        if self.tie_rule == "half_even":
            return builder.add("Round", real)
        return builder.add("Floor", builder.add("Add", real, builder.floats(0.5)))

    def _dequantized(self, stored: str, scale: Any, axis: int | None) -> str:
        builder, inputs = self.builder, (stored, self.builder.floats(scale))
        if axis is None:
            return builder.add("DequantizeLinear", *inputs)
        return builder.add("DequantizeLinear", *inputs, axis=axis)

    def _quantize(self, real: str, target: Stored, scale: float) -> None:
        self.builder.add(
            "QuantizeLinear",
            real,
            self.builder.floats(scale),
            self._zero(target.codes),
            output=target.name,
        )

    def _zero(self, codes: Codes) -> str:
        return self.builder.zero(codes.bits, signed=codes.signed)

    def _integer_type(self, codes: Codes) -> int | None:
        return self.builder.integer_type(codes.bits, signed=codes.signed)


class QonnxCodec(Codec):
    """Floats behind Quant nodes, which name the true width.

    A tensor is its codes times its scale.
    """

    def grid(self, stored: Stored) -> float:
        """Tensors have one scale."""
        return stored.scale

    def decode(self, stored: Stored, scale: float) -> str:
        """Nothing, where the scale is the tensor's; for codes a quotient, made whole."""
        factor = scale / stored.scale
        real = self.times(stored.name, factor)
        return self.builder.add("Round", real) if scale == 1 and np.float32(factor) != 1 else real

    def encode(self, real: str, target: Stored, scale: float) -> None:
        """A Quant node whose ties go as the network's."""
        real = self.limited(real, target, scale)
        rounding = "ROUND" if self.tie_rule == "half_even" else "HALF_UP"
        if self.tie_rule == "half_up" and target.codes.signed:
            # HALF_UP is away from zero there.
            real = self.builder.add("Add", real, self.builder.floats(scale / 2))
            rounding = "FLOOR"
        self._quant(real, target, scale, rounding)

    def encode_moved(self, real: str, target: Stored) -> None:
        """What is moved stays what it is."""
        self.builder.name_result(real, target.name)

    def encode_entries(self, real: str, target: Stored) -> None:
        """A Quant node, which changes nothing, for the width."""
        self._quant(real, target, target.scale, "ROUND")

    def weight(
        self, codes: Int[np.ndarray, "*shape"], bits: int, scale: Any, axis: int | None
    ) -> str:
        """Floats behind a Quant node."""
        wide = np.asarray(scale, dtype=np.float32)
        if axis is not None:
            wide = wide.reshape([-1 if d == axis else 1 for d in range(codes.ndim)])
        narrow = bool(codes.min() > -(1 << (bits - 1)))
        real = self.builder.floats(codes.astype(np.float32) * wide)
        return self._quant_node(real, wide, bits, signed=True, narrow=narrow)

    def bias(self, codes: Int[np.ndarray, " channels"], bits: int, scale: Any) -> str:
        """Floats behind a Quant node."""
        return self._quant_node(self.builder.floats(codes * scale), scale, bits, signed=True)

    def _quant(self, real: str, target: Stored, scale: float, rounding: str) -> None:
        codes = target.codes
        self._quant_node(
            real, scale, codes.bits, signed=codes.signed, rounding=rounding, output=target.name
        )

    def _quant_node(
        self,
        real: str,
        scale: Any,
        bits: int,
        *,
        signed: bool,
        narrow: bool = False,
        rounding: str = "ROUND",
        output: str | None = None,
    ) -> str:
        builder = self.builder
        return builder.add(
            "Quant",
            real,
            builder.floats(scale),
            builder.floats(0.0),
            builder.floats(float(bits)),
            output=output,
            domain=QONNX_DOMAIN,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode=rounding,
        )
