"""An ONNX graph while it is written: nodes, constants, and names that are taken once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from quantisp.quantization.export.onnx.packages import needed

__all__ = ["IR_VERSION", "OPSET", "GraphBuilder"]

OPSET, IR_VERSION = 21, 10
EXTRA = "export"


class GraphBuilder:
    """Collects nodes and initializers.

    Args:
        reserved: names that only ``output`` may give to a tensor.

    Attributes:
        scope: what the names of new tensors begin with.
    """

    def __init__(self, reserved: Iterable[str]) -> None:
        self._onnx = needed("onnx", EXTRA)
        self._reserved = frozenset(reserved)
        self._taken = set(self._reserved)
        self._constants: dict[Any, str] = {}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.scope = ""

    def add(
        self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **fields: Any
    ) -> str:
        """One node of one output, whose name is given back.

        Args:
            kind: of operation.
            inputs: names of tensors.
            output: a reserved name for the output, or None for a new one.
            domain: of the operation; ONNX's own, if empty.
            fields: attributes.
        """
        name = self.fresh(kind.lower()) if output is None else output
        node = self._onnx.helper.make_node(
            kind, list(inputs), [name], name=self.fresh(f"{kind}_node"), domain=domain, **fields
        )
        self.nodes.append(node)
        return name

    def name_result(self, tensor: str, name: str) -> None:
        """Give what the last node gives another name, unless it has a reserved one."""
        node = self.nodes[-1]
        if tensor in self._reserved or list(node.output) != [tensor]:
            self.add("Identity", tensor, output=name)
        else:
            node.output[0] = name

    def floats(self, values: Any) -> str:
        """A constant in float32."""
        return self._constant(np.asarray(values, dtype=np.float32))

    def whole(self, values: int | Sequence[int]) -> str:
        """A constant in int64."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def codes(self, values: Int[Any, "*shape"], bits: int, label: str) -> str:
        """Signed integers in the narrowest of INT4, INT8, INT16 and INT32 that is made for them."""
        proto = self._onnx.TensorProto
        kind = next(k for k in (4, 8, 16, 32) if bits <= k)
        array = np.ascontiguousarray(values)
        if kind == 4:
            content = _nibbles(array)
        else:
            content = array.astype({8: "<i1", 16: "<i2", 32: "<i4"}[kind]).tobytes()
        name = self.fresh(label)
        data_type = {4: proto.INT4, 8: proto.INT8, 16: proto.INT16, 32: proto.INT32}[kind]
        self.initializers.append(
            self._onnx.helper.make_tensor(name, data_type, array.shape, content, raw=True)
        )
        return name

    def integer_type(self, bits: int, *, signed: bool) -> int | None:
        """ONNX's integers of exactly that width."""
        return getattr(self._onnx.TensorProto, f"{'' if signed else 'U'}INT{bits}", None)

    def zero(self, bits: int, *, signed: bool) -> str:
        """A zero of so many bits, 4, 8 or 16: what says the type of codes."""
        key = ("zero", bits, signed)
        if key not in self._constants:
            self._constants[key] = name = self.fresh("zero")
            data_type = self.integer_type(bits, signed=signed)
            content = bytes(-(-bits // 8))
            self.initializers.append(
                self._onnx.helper.make_tensor(name, data_type, [], content, raw=True)
            )
        return self._constants[key]

    def fresh(self, label: str) -> str:
        """A name that nothing has."""
        stem = f"{self.scope}/{label}" if self.scope else label
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def _constant(self, array: Any) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if array.size > 16 or key not in self._constants:
            name = self.fresh("constant")
            self.initializers.append(self._onnx.numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]


def _nibbles(values: Any) -> bytes:
    """Two numbers of four bits a byte, the first one in the lower half."""
    flat = values.reshape(-1).astype(np.int64) & 15
    even = np.append(flat, 0) if len(flat) % 2 else flat
    return (even[::2] | even[1::2] << 4).astype(np.uint8).tobytes()
