"""Layers with weights in C: their kernels, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from quantisp.errors import ModelError
from quantisp.quantization.export.c.instances import Instances, ctype, short, width_for
from quantisp.quantization.export.c.sums import BLOCK, TILE, Sums, choose_sums, store_lines
from quantisp.quantization.graph.nodes import Conv, ConvTranspose, Linear, Node
from quantisp.quantization.integer import Codes, IntegerNetwork, NodeIntegers, Weights
from quantisp.quantization.integer.bounds import worst_accumulators

__all__ = ["ALIGNMENT", "LayerCode", "layer_code"]

OUTPUTS = 4
ALIGNMENT = 64

CONV = (
    "const int64_t row_y = (int64_t)(y * l->stride[0] + ky * l->dilation[0]) - l->padding[0];\n"
    "        const int above = row_y >= 0 && row_y < (int64_t)s.h;\n"
    "        const size_t from_y = above ? (size_t)row_y : 0;",
    "const int64_t column_x = (int64_t)(x * l->stride[1] + kx * l->dilation[1]) - l->padding[1];\n"
    "            const int left = column_x >= 0 && column_x < (int64_t)s.w;\n"
    "            const size_t from_x = left ? (size_t)column_x : 0;",
)
TRANSPOSED = (
    "const int64_t row_y = (int64_t)y + l->padding[0] - (int64_t)(ky * l->dilation[0]);\n"
    "        const size_t from_y = row_y < 0 ? s.h : (size_t)row_y / l->stride[0];\n"
    "        const int above = row_y >= 0 && (size_t)row_y % l->stride[0] == 0 && from_y < s.h;",
    "const int64_t column_x = (int64_t)x + l->padding[1] - (int64_t)(kx * l->dilation[1]);\n"
    "            const size_t from_x = column_x < 0 ? s.w : (size_t)column_x / l->stride[1];\n"
    "            const int left = column_x >= 0 && (size_t)column_x % l->stride[1] == 0 && "
    "from_x < s.w;",
)
LIMITS = {
    "error": "        outside |= exact < l->least || exact > l->greatest;\n",
    "clamp": "        exact = limited64(exact, l->least, l->greatest);\n",
    "wrap": "        exact = (int64_t)((uint64_t)exact & l->mask);\n"
    "        exact = exact > l->greatest ? exact - 2 * (l->greatest + 1) : exact;\n",
}


@dataclass(frozen=True, kw_only=True)
class LayerCode:
    """A layer in C.

    Args:
        function: of its kernel.
        arrays: name, type, and values.
        fields: of its ``layer``.
        scratch: bytes that the kernel works in.
    """

    function: str
    arrays: tuple[tuple[str, str, list[int]], ...]
    fields: dict[str, str]
    scratch: int


def layer_code(instances: Instances, network: IntegerNetwork, node: Node, index: int) -> LayerCode:
    """A layer's kernel and numbers.

    Args:
        instances: where kernels are written out.
        network: that it is part of.
        node: with weights.
        index: of the node, for names.

    Raises:
        ModelError: no multipliers.
    """
    own = network.integers[node.name]
    weights, rescale, given = own.weights, own.rescale, network.integers[node.inputs[0]].codes
    if weights is None or rescale is None:
        raise ModelError(f"expected weights and multipliers in node {node.name!r}, found none")
    depthwise = _is_depthwise(node, weights)
    sums = choose_sums(node, weights, given, depthwise=depthwise)
    rescaler = _rescaler(instances, network, node, own, sums)
    rows = _rows(node, weights.codes)
    groups, outputs, inputs = rows.shape[0], rows.shape[1], rows.shape[-1]
    taps = rows.shape[2] * rows.shape[3]
    blocks = -(-taps * inputs // BLOCK)
    padded = -(-outputs // OUTPUTS) * OUTPUTS
    if depthwise:
        packed = rows.reshape(groups, taps).T.contiguous()
        groups, outputs = 1, rows.shape[0]
        function = _depthwise(instances, own, given, sums, rescaler)
    else:
        packed = torch.zeros(groups, padded, blocks * BLOCK, dtype=torch.int64)
        packed[:, :outputs, : taps * inputs] = rows.reshape(groups, outputs, -1)
        function = _product_layer(instances, node, own, given, sums, rescaler)
    channels = len(weights.bias)
    bias = weights.bias - sums.zero * rows.reshape(channels, -1).sum(dim=1)
    bias_type = "int32_t" if rescaler[1] == "bias" else "int64_t"
    arrays = (
        (f"weight_{index}", sums.weight, packed.flatten().tolist()),
        (f"bias_{index}", bias_type, bias.tolist()),
        (f"multiplier_{index}", "int32_t", rescale.multiplier[0].expand(channels).tolist()),
        (f"shift_{index}", "uint8_t", rescale.shift.expand(channels).tolist()),
    )
    fields = {
        "weight": f"weight_{index}",
        rescaler[1]: f"bias_{index}",
        "multiplier": f"multiplier_{index}",
        "shift": f"shift_{index}",
        "inputs": str(inputs),
        "outputs": str(outputs),
        "groups": str(groups),
        "blocks": str(blocks),
        "padded": str(padded),
        "part": str(sums.part),
        **_geometry(node, rows),
        "low": str(own.codes.low),
        "high": str(own.codes.high),
        **_limits(network),
    }
    wide = TILE * (padded + outputs) * 8
    scratch = sums.limbs * TILE * blocks * BLOCK * 2 + wide + channels * 8 + 4 * ALIGNMENT
    return LayerCode(function=function, arrays=arrays, fields=fields, scratch=scratch)


def _is_depthwise(node: Node, weights: Weights) -> bool:
    operation, shape = node.operation, weights.codes.shape
    return isinstance(operation, Conv) and shape[1] == 1 and operation.groups == shape[0] > 1


def _rows(node: Node, codes: Int[Tensor, "*shape"]) -> Int[Tensor, "g o y x i"]:
    """Weights as group, output, tap down, tap across, input."""
    operation: Any = node.operation
    codes = codes.to(torch.int64)
    if isinstance(operation, Linear):
        return codes[None, :, None, None, :]
    if isinstance(operation, ConvTranspose):
        split = codes.unflatten(0, (operation.groups, -1))
        return split.permute(0, 2, 3, 4, 1).contiguous()
    return codes.unflatten(0, (operation.groups, -1)).permute(0, 1, 3, 4, 2).contiguous()


def _rescaler(
    instances: Instances, network: IntegerNetwork, node: Node, own: NodeIntegers, sums: Sums
) -> tuple[str, str]:
    """The function from sums to codes, and the field of its biases."""
    worst = next(found for found in worst_accumulators(network) if found.node == node.name)
    accumulator, rescale = network.accumulator, own.rescale
    limit = ""
    if accumulator is not None and accumulator.bits < worst.bits:
        limit = accumulator.overflow
    narrow = sums.kind == "int32_t" and worst.bits <= 32 and not limit
    bits = 64
    if narrow and rescale is not None:
        most = max(-worst.least, worst.greatest) * int(rescale.multiplier.max())
        bits = width_for(most, int(rescale.shift.max()))
    exact = "int32_t" if narrow else "int64_t"
    instances.rounding(bits)
    out = ctype(own.codes)
    name = f"rescale_{short(sums.kind)}_{short(out)}_{bits}{'_' + limit if limit else ''}"
    name += "" if narrow else "_wide"
    instances.use(
        "rescale",
        name,
        SUM=sums.kind,
        OUT=out,
        BITS=bits,
        EXACTTYPE=exact,
        BIAS=exact,
        BIASES="bias" if narrow else "wide_bias",
        LIMIT=LIMITS[limit] if limit else "",
    )
    return name, "bias" if narrow else "wide_bias"


def _depthwise(
    instances: Instances,
    own: NodeIntegers,
    given: Codes,
    sums: Sums,
    rescaler: tuple[str, str],
) -> str:
    source, out = ctype(given), ctype(own.codes)
    name = f"depthwise_{short(source)}_{short(sums.weight)}_{rescaler[0].removeprefix('rescale_')}"
    return instances.use(
        "depthwise",
        name,
        IN=source,
        OUT=out,
        SUM=sums.kind,
        WEIGHT=sums.weight,
        RESCALE=rescaler[0],
        ROW=CONV[0].replace("\n", "\n            "),
        COLUMN=CONV[1].replace("\n", "\n            "),
    )


def _product_layer(
    instances: Instances,
    node: Node,
    own: NodeIntegers,
    given: Codes,
    sums: Sums,
    rescaler: tuple[str, str],
) -> str:
    operation = node.operation
    kind = "transposed" if isinstance(operation, ConvTranspose) else "conv"
    kind = "linear" if isinstance(operation, Linear) else kind
    source, out = ctype(given), ctype(own.codes)
    operands = {"byte_operand": "bytes"}.get(sums.operand, f"words{sums.limbs}")
    row, column = TRANSPOSED if kind == "transposed" else CONV
    words = {"IN": source, "OPERAND": sums.operand, "ROW": row, "COLUMN": column}
    gather = instances.use(
        "gather_linear" if kind == "linear" else "gather",
        f"gather_{kind}_{short(source)}_{operands}",
        **words,
        **store_lines(sums),
    )
    shared = {"OPERAND": sums.operand, "WEIGHT": sums.weight, "LIMBCOUNT": sums.limbs}
    narrow = sums.kind == "int32_t"
    products = instances.use(
        "products" if narrow else "products_wide",
        f"products_{operands}" + ("" if narrow else "_wide"),
        LIMBS=("one limb", "two limbs")[sums.limbs - 1],
        **shared,
    )
    return instances.use(
        "linear" if kind == "linear" else "layer",
        f"{kind}_{short(source)}_{operands}_{rescaler[0].removeprefix('rescale_')}",
        IN=source,
        OUT=out,
        SUM=sums.kind,
        GATHER=gather,
        PRODUCTS=products,
        RESCALE=rescaler[0],
        **shared,
    )


def _geometry(node: Node, rows: Tensor) -> dict[str, str]:
    operation: Any = node.operation
    if isinstance(operation, Linear):
        return {}

    def pair(values: Any) -> str:
        return f"{{{values[0]}, {values[1]}}}"

    return {
        "kernel": pair(rows.shape[2:4]),
        "stride": pair(operation.stride),
        "padding": pair(operation.padding),
        "dilation": pair(operation.dilation),
    }


def _limits(network: IntegerNetwork) -> dict[str, str]:
    accumulator = network.accumulator
    if accumulator is None or accumulator.bits == 64:
        return {}
    return {
        "least": f"-INT64_C({accumulator.greatest}) - 1",
        "greatest": f"INT64_C({accumulator.greatest})",
        "mask": f"UINT64_C({(1 << accumulator.bits) - 1})",
    }
