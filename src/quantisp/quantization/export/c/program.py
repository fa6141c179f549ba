"""The files of a program in C, as texts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from quantisp.quantization.export.c.instances import Instances, ctype, filled
from quantisp.quantization.export.c.layers import ALIGNMENT, LayerCode, layer_code
from quantisp.quantization.export.c.memory import assign_slots
from quantisp.quantization.export.c.nodes import call_lines
from quantisp.quantization.export.c.places import Place
from quantisp.quantization.export.c.shape_lines import shape_lines
from quantisp.quantization.export.c.sums import BLOCK, TILE
from quantisp.quantization.export.shapes import input_channels, size_step, tensor_shapes
from quantisp.quantization.graph.nodes import Input, Mask
from quantisp.quantization.integer import IntegerNetwork

__all__ = ["Program", "program_files"]

NUMBERS_A_LINE = 24
# A picture by whose tensors slots are shared and memory is stated.
USUAL_PX = 960


class Program:
    """What is known of a program while it is put together.

    Args:
        network: in integers.
        name: a C identifier.

    Attributes:
        labels: what each node is called in C, by its name.
        work_per_px: bytes of work memory for each px of a large picture, without ``scratch``.
    """

    def __init__(self, network: IntegerNetwork, name: str) -> None:
        self.network, self.name = network, name
        self.instances = Instances(network.tie_rule)
        self.channels = input_channels(network)
        self.step = size_step(network, self.channels)
        self.places = {
            node.name: Place(index=index, codes=own.codes)
            for index, (node, own) in enumerate(network)
        }
        self.labels = {name: _label(name, place.index) for name, place in self.places.items()}
        size = network.graph.size or (USUAL_PX, USUAL_PX)
        shapes = tensor_shapes(network, (1, self.channels, *size))
        sizes = {
            node.name: _elements(shapes[node.name]) * _bytes(ctype(own.codes))
            for node, own in network
        }
        self.slots = assign_slots(network.graph, sizes)
        self.layers: dict[str, LayerCode] = {
            node.name: layer_code(self.instances, network, node, self.places[node.name].index)
            for node, _, _, _ in network.layers()
        }
        self.scratch = max((layer.scratch for layer in self.layers.values()), default=0)
        slot_count = max(self.slots.values()) + 1
        held = [max(sizes[n] for n, s in self.slots.items() if s == k) for k in range(slot_count)]
        self.work_per_px = sum(held) / (size[0] * size[1])

    @property
    def sizes(self) -> str:
        """What heights and widths there are, in words."""
        size = self.network.graph.size
        if size is not None:
            return f"{size[0]}x{size[1]} px"
        return "any size" if self.step == 1 else f"multiples of {self.step} px"


def program_files(
    program: Program, verified: str, sample_size: tuple[int, int] = (0, 0)
) -> Mapping[str, str]:
    """The texts by the files' names.

    Args:
        program: what to write.
        verified: what the header says of it.
        sample_size: height and width of what ``make check`` runs on.
    """
    name, network = program.name, program.network
    output = program.places[network.graph.output]
    words: dict[str, object] = {
        "NAME": name,
        "NAMES": name.upper(),
        "ORIGIN": _origin(network),
        "VERIFIED": verified,
        "IN_CHANNELS": program.channels,
        "IN_BITS": network.integers[network.graph.nodes[0].name].codes.bits,
        "OUT_BITS": output.codes.bits,
        "OUT_SIGN": " in two's complement of 16" if output.codes.low < 0 else "",
        "LAYERS": len(program.layers),
        "SIZES": program.sizes,
        "WORK": f"{program.work_per_px:.1f} bytes a px of the input and "
        f"{program.scratch + ALIGNMENT:,} for rows of operands.",
        "HEIGHT": sample_size[0],
        "WIDTH": sample_size[1],
        "TILE": TILE,
        "BLOCK": BLOCK,
        "ALIGNMENT": ALIGNMENT,
    }
    words |= _body(program)
    words["KERNELS"] = str(program.instances)
    return {
        f"{name}.h": filled("program.h", words),
        f"{name}.c": filled("program.c", words),
        f"{name}_kernels.h": filled("program_kernels.h", words),
        f"{name}_weights.h": _weights(program),
        "main.c": filled("main.c", words),
        "Makefile": filled("Makefile", words),
    }


def _body(program: Program) -> dict[str, object]:
    network, places = program.network, program.places
    shape_text: list[str] = []
    calls: list[str] = []
    shown = 'show(hook, user, "{label}", {pointer}, {bytes}, {signed}, {shape});'
    for node, own in network:
        place = places[node.name]
        given = [places[name] for name in node.inputs]
        if isinstance(node.operation, Input):
            sized = f"sized(&s[{place.index}], 1, {program.channels}, height, width)"
            shape_text.append(f"    if (!{sized}) return 0;")
        else:
            shape_text += [f"    {line}" for line in shape_lines(node, own, given, place.index)]
        kind, slot = place.type, program.slots[node.name]
        calls.append(f"    {kind} *{place.pointer} = ({kind} *)(void *)(memory + at[{slot}]);")
        calls += [
            f"    {line}"
            for line in call_lines(
                program.instances, network, node, given, place, program.layers.get(node.name)
            )
        ]
        calls.append(
            "    "
            + shown.format(
                label=program.labels[node.name],
                pointer=place.pointer,
                bytes=_bytes(kind),
                signed=int(kind.startswith("int")),
                shape=place.shape,
            )
        )
    last = places[network.graph.output]
    store = program.instances.use("output", f"output_{last.type}", A=last.type)
    calls.append(f"    {store}({last.pointer}, output, elements({last.shape}));")
    return {
        "NODES": len(places),
        "SLOTS": max(program.slots.values()) + 1,
        "SCRATCH": program.scratch,
        "LAYERTABLE": "\n".join(
            f"static const layer layer_{places[name].index} = {{{_fields(layer)}}};\n"
            for name, layer in program.layers.items()
        ),
        "SHAPES": "\n".join(shape_text),
        "CALLS": "\n".join(calls),
        "BYTES": ", ".join(str(_bytes(place.type)) for place in places.values()),
        "SLOTOF": ", ".join(map(str, program.slots.values())),
        "OUTPUT": last.index,
    }


def _fields(layer: LayerCode) -> str:
    return ",\n    ".join(f".{field} = {value}" for field, value in layer.fields.items())


def _weights(program: Program) -> str:
    names = program.name.upper()
    parts = [
        f"/* {program.name}: numbers of layers. */",
        f"#ifndef {names}_WEIGHTS_H\n#define {names}_WEIGHTS_H\n",
    ]
    for layer in program.layers.values():
        parts += [_array(name, kind, values) for name, kind, values in layer.arrays]
    for node, own in program.network:
        index = program.places[node.name].index
        if own.table is not None:
            kind = program.places[node.name].type
            parts.append(_array(f"table_{index}", kind, own.table.tolist()))
        if isinstance(node.operation, Mask):
            tile: Tensor = node.operation.tile
            values = tile.permute(1, 2, 0).flatten().long().tolist()
            # The tile is (channels, rows, columns) for people, and channels last in memory.
            parts.append(_array(f"tile_{index}", "uint8_t", values))
    return "\n".join([*parts, "\n#endif\n"])


def _array(name: str, kind: str, values: list[int]) -> str:
    wide = kind == "int64_t"
    numbers = [f"INT64_C({value})" if wide else str(value) for value in values]
    lines = [
        ",".join(numbers[k : k + NUMBERS_A_LINE]) for k in range(0, len(numbers), NUMBERS_A_LINE)
    ]
    return f"static const {kind} {name}[{len(values)}] = {{\n" + ",\n".join(lines) + "};"


def _label(name: str, index: int) -> str:
    """A node's name where it is an identifier: files and waveforms are called so."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,60}", name) else f"node_{index}"


def _origin(network: IntegerNetwork) -> str:
    text = network.origin.get("model", "")
    return "Made from " + re.sub(r"[^A-Za-z0-9_.,:-]+", " ", text) + "." if text else ""


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _bytes(kind: str) -> int:
    return 1 if "8" in kind else 2
