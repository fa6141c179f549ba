"""A ``torch.export`` program as a network: its layers are modules, so that they can be quantized.

::

    x ─▶ InputSize ─▶ aten operations, of which convolutions, linear layers and normalisations ─▶ y
                      are nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d/2d,
                      under the names that they had before the export
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from quantisp.errors import ModelError
from quantisp.models.program_input import UNBOUNDED, InputSize, SizeRule
from quantisp.models.program_layers import LAYERS, layer_of
from quantisp.models.program_operations import OPERATIONS, SIZE_OPERATIONS, UNNEEDED
from quantisp.models.pt2 import DTYPES, Pt2File, read_pt2

__all__ = ["load_program"]

ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
# As sympy writes a size, s0 or 2*s0: it is compared, never evaluated.
_SYMBOL = r"Symbol\('(s\d+)'[\w\s=,]*\)"
SYMBOL = re.compile(rf"{_SYMBOL}|Mul\(Integer\((\d+)\), {_SYMBOL}\)")
# By the numbers of the file format.
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    4: torch.preserve_format,
}
LAYOUTS = {7: torch.strided}
# What becomes of each kind of argument that names nothing computed.
PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_int": int,
    "as_ints": list,
    "as_bool": bool,
    "as_bools": list,
    "as_float": float,
    "as_floats": lambda values: [float(value) for value in values],
    "as_string": str,
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": MEMORY_FORMATS.__getitem__,
    "as_layout": LAYOUTS.__getitem__,
    "as_device": lambda _: torch.device("cpu"),
}


class StoredTensors(nn.Module):
    """Parameters and buffers that an operation uses which is no layer."""


def load_program(path: Path) -> fx.GraphModule:
    """Build the network of a ``.pt2`` file; nothing in the file is executed.

    Returns:
        A network of one input (n, c, h, w) and one output, in evaluation mode.

    Raises:
        ModelError: the file cannot be used, or has an operation that is not known here.
    """
    file = read_pt2(path)
    try:
        return _Builder(path, file).build()
    # A file that says one thing here and another there.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise ModelError(
            f"expected a sound program in {path}, found {type(error).__name__} "
            f"({' '.join(str(error).split())[:120]}): export it again"
        ) from error


class _Builder:
    """Turns the nodes of a file into those of a graph, one after the other."""

    def __init__(self, path: Path, file: Pt2File) -> None:
        self.path = path
        self.file = file
        self.root = nn.Module()
        self.graph = fx.Graph()
        # Of the file's names: tensors and sizes that were computed, and the stored tensors.
        self.computed: dict[str, Any] = {}
        self.stored: dict[str, str] = {}

    def build(self) -> fx.GraphModule:
        self._inputs()
        for node in self.file.graph["nodes"]:
            self._node(node)
        specs = self.file.signature["output_specs"]
        outputs = [spec["user_output"]["arg"] for spec in specs if "user_output" in spec]
        if len(specs) != 1 or len(outputs) != 1 or "as_tensor" not in outputs[0]:
            raise self._refused(
                "one output and no buffer that changes", f"{len(specs)} outputs", "call .eval()"
            )
        self.graph.output(self._argument(outputs[0]))
        self.graph.lint()
        built = fx.GraphModule(self.root, self.graph, class_name="Program")
        return built.eval().requires_grad_(False)

    def _refused(self, expected: str, found: str, mend: str) -> ModelError:
        return ModelError(
            f"expected a program with {expected}, {self.path} has {found}: {mend} before exporting"
        )

    def _inputs(self) -> None:
        given: list[str] = []
        for spec in self.file.signature["input_specs"]:
            ((kind, content),) = spec.items()
            if kind == "user_input":
                given.append(content["arg"]["as_tensor"]["name"])
            elif f"{kind}_name" in content and kind in ("parameter", "buffer", "tensor_constant"):
                self.stored[content["arg"]["name"]] = content[f"{kind}_name"]
            else:
                raise self._refused("tensors alone as state", kind, "remove it")
        sizes = self.file.graph["tensor_values"][given[0]]["sizes"] if given else []
        if len(given) != 1 or len(sizes) != 4:
            raise self._refused(
                "one input (n, c, h, w)", f"{len(given)} of {len(sizes)} dimensions", "mend forward"
            )
        self.root.add_module("input_size", InputSize([self._rule(size) for size in sizes]))
        placeholder = self.graph.placeholder("picture")
        self.computed[given[0]] = self.graph.call_module("input_size", (placeholder,))

    def _rule(self, size: Mapping[str, Any]) -> SizeRule:
        if "as_int" in size:
            return SizeRule(symbol="", multiple=1, least=size["as_int"], most=size["as_int"])
        text = size["as_expr"]["expr_str"]
        found = SYMBOL.fullmatch(text)
        if found is None:
            raise self._refused("sizes like 2*s0", f"the size {text[:40]!r}", "simplify it")
        multiple, symbol = int(found[2] or 1), found[1] or found[3]
        bounds = self.file.ranges.get(symbol if multiple == 1 else f"{multiple}*{symbol}", {})
        least, most = bounds.get("min_val"), bounds.get("max_val")
        return SizeRule(
            symbol=symbol,
            multiple=multiple,
            least=1 if least is None else max(least, 1),
            most=UNBOUNDED if most is None else most,
        )

    def _node(self, node: Mapping[str, Any]) -> None:
        name = node["target"].removeprefix("torch.ops.aten.")
        if name in UNNEEDED:
            return
        written = node["inputs"][0]["arg"].get("as_tensor", {}) if node["inputs"] else {}
        if name.partition(".")[0].endswith("_") and written.get("name") in self.stored:
            raise self._refused("no buffer that changes", f"{name[:40]} on one", "call .eval()")
        if name in LAYERS:
            given = {entry["name"]: entry["arg"] for entry in node["inputs"]}
            stored = self.stored.get(given["weight"].get("as_tensor", {}).get("name"))
            if stored is not None or "running_mean" in given:
                self._keep(node["outputs"], self._layer(name, given, stored, node), layer=True)
                return
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for entry in node["inputs"]:
            value = self._argument(entry["arg"])
            # 2 is a keyword argument.
            if entry.get("kind") == 2:
                named[entry["name"]] = value
            else:
                positional.append(value)
        operation = self._operation(node["target"])
        made = self.graph.call_function(operation, tuple(positional), named)
        self._keep(node["outputs"], made)

    def _operation(self, target: str) -> Callable[..., Any]:
        if target in SIZE_OPERATIONS:
            return SIZE_OPERATIONS[target]
        found = ATEN.fullmatch(target)
        if found is not None and found[1] in OPERATIONS:
            operation = getattr(getattr(torch.ops.aten, found[1]), found[2])
            if isinstance(operation, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage]
                return operation
        raise ModelError(
            f"expected operations of image networks, {self.path} has {target[:80]}, which is not "
            "known here: write that part of the network in other operations, or give the network "
            "as package.module:factory"
        )

    def _layer(
        self, name: str, given: Mapping[str, Any], stored: str | None, node: Mapping[str, Any]
    ) -> fx.Node:
        tensors = {
            key: self.file.tensors[self.stored[arg["as_tensor"]["name"]]]
            for key, arg in given.items()
            if key in ("weight", "bias", "running_mean", "running_var") and "as_tensor" in arg
        }
        others = ("input", *tensors)
        settings = {key: self._argument(arg) for key, arg in given.items() if key not in others}
        rank = len(self.file.graph["tensor_values"][given["input"]["as_tensor"]["name"]]["sizes"])
        layer = layer_of(name, tensors, settings, rank)
        mean = given.get("running_mean", {}).get("as_tensor", {}).get("name")
        source = stored or self.stored[mean]
        path = source.rpartition(".")[0] or node["outputs"][0]["as_tensor"]["name"]
        path = self._placed(re.sub(r"[^\w.]", "_", path), layer)
        return self.graph.call_module(path, (self._argument(given["input"]),))

    def _placed(self, path: str, layer: nn.Module) -> str:
        """Where the layer is: a layer that is used twice is one module."""
        modules = dict(self.root.named_modules())
        tried, number = path, 1
        while tried in modules:
            other = modules[tried]
            if repr(other) == repr(layer) and _same_state(other, layer):
                return tried
            tried, number = f"{path}_{number}", number + 1
        parent, _, leaf = tried.rpartition(".")
        self._parent(parent).add_module(leaf, layer)
        return tried

    def _parent(self, path: str) -> nn.Module:
        module = self.root
        for part in path.split(".") if path else ():
            children = dict(module.named_children())
            if part not in children:
                module.add_module(part, StoredTensors())
            module = module.get_submodule(part)
        return module

    def _argument(self, arg: Mapping[str, Any]) -> Any:
        """An argument of an operation: plain values, and nodes for what was computed before."""
        ((kind, value),) = arg.items()
        if kind in PLAIN:
            return PLAIN[kind](value)
        if kind == "as_tensor":
            return self._tensor(value["name"])
        if kind == "as_tensors":
            return [self._tensor(entry["name"]) for entry in value]
        if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_floats"):
            return [self._argument(entry) for entry in value]
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self._argument(value)
        if kind == "as_name":
            return self.computed[value]
        raise self._refused("plain arguments", f"an argument {kind[:40]!r}", "rewrite that part")

    def _tensor(self, name: str) -> fx.Node:
        if name not in self.stored:
            return self.computed[name]
        path = re.sub(r"[^\w.]", "_", self.stored[name])
        parent, _, leaf = path.rpartition(".")
        owner = self._parent(parent)
        value = self.file.tensors[self.stored[name]]
        if leaf not in dict(owner.named_parameters(recurse=False)) and leaf not in dict(
            owner.named_buffers(recurse=False)
        ):
            if self.stored[name] in self.file.parameters:
                owner.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
            else:
                owner.register_buffer(leaf, value)
        return self.graph.get_attr(path)

    def _keep(
        self, outputs: Sequence[Mapping[str, Any]], made: fx.Node, *, layer: bool = False
    ) -> None:
        """Remember what the file calls the outputs of a node."""
        names: list[str] = []
        for output in outputs:
            ((kind, value),) = output.items()
            if kind == "as_tensors":
                names += [entry["name"] for entry in value]
            elif kind != "as_none":
                names.append(value.get("name") or value.get("as_name"))
        several = len(names) > 1 or any("as_tensors" in output for output in outputs)
        for number, name in enumerate(names):
            if not several or layer:
                self.computed.setdefault(name, made)
            else:
                self.computed[name] = self.graph.call_function(operator.getitem, (made, number))


def _same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
