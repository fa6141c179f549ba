"""From PyTorch's own graph to ours: operation by operation, or an error that names what it met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from quantisp.errors import ModelError
from quantisp.quantization.graph.nodes import Extent, Graph, Input, Node, Operation, Size
from quantisp.quantization.graph.values import Call, Constant, Value, Zeros

__all__ = ["Lowering", "lower", "writes_through_views"]

# Operations whose result may be the memory of their input.
_VIEWS = frozenset(
    "alias chunk contiguous detach dropout expand getitem movedim permute reshape select slice "  # noqa: SIM905
    "split split_with_sizes squeeze to transpose unsqueeze view".split()
)


def lower(program: ExportedProgram, network: nn.Module, *, prefix: str) -> Graph:
    """The graph of an exported program.

    Args:
        program: without writing through views; of a module that holds ``network`` under the name
            ``prefix``.
        network: whose layers the nodes name.
        prefix: see ``program``.

    Raises:
        ModelError: an operation that no node stands for.
    """
    lowering = Lowering(program=program, network=network, prefix=prefix)
    return lowering.run()


def writes_through_views(program: ExportedProgram) -> bool:
    """Whether an operation in place may change a tensor under two names."""
    for node in program.graph.nodes:
        if not _in_place(node):
            continue
        written = node.args[0]
        others = [user for user in written.users if user is not node]
        if any(_short_name(other) in _VIEWS for other in (written, *others)):
            return True
    return False


@dataclass(kw_only=True)
class Lowering:
    """The nodes so far, and what each of PyTorch's nodes has become."""

    program: ExportedProgram
    network: nn.Module
    prefix: str
    nodes: list[Node] = field(default_factory=list[Node])
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    where: str = ""

    def run(self) -> Graph:
        """Lower every node."""
        from quantisp.quantization.graph.operations import LOWERINGS

        size: tuple[int, int] | None = None
        for node in self.program.graph.nodes:
            self.where = self._where(node)
            if node.op == "placeholder":
                self.values[node.name] = self._placeholder(node)
                if self.values[node.name] == node.name:
                    size = self._fixed_size(node)
            elif node.op == "call_function":
                call = self._call(node)
                handler = LOWERINGS.get(call.target)
                if call.is_size or call.target.startswith("aten._assert"):
                    continue
                constant = self._computed(node, call)
                if constant is not None:
                    self.values[node.name] = constant
                    continue
                if handler is None:
                    raise self.unknown(call.target)
                self.values[node.name] = handler(self, call)
                if _in_place(node):
                    self.values[node.args[0].name] = self.values[node.name]
        return Graph(nodes=tuple(self.nodes), output=self._output(), size=size)

    def add(self, operation: Operation, *inputs: str, name: str) -> str:
        """A new node; returns its name."""
        self.nodes.append(Node(name=name, operation=operation, inputs=inputs, where=self.where))
        return name

    def unknown(self, what: str) -> ModelError:
        """For an operation, or a form of one, that no node stands for."""
        return ModelError(
            f"expected operations that integers can do, found {what} at {self.where}: replace it "
            "by one of those in docs/activations.md, or leave activations in float"
        )

    def tensor(self, value: Value, what: str) -> str:
        """The name of a tensor.

        Raises:
            ModelError: the value is something else.
        """
        if not isinstance(value, str):
            raise self.unknown(f"{what} of a constant")
        return value

    def size(self, value: object) -> Size:
        """A size, fixed or not."""
        if isinstance(value, int):
            return value
        if isinstance(value, torch.SymInt):
            return self._extent(value)
        raise self.unknown(f"a size of {value!r}")

    def layer(self, call: Call, kind: type[nn.Module]) -> str:
        """The name of the layer whose weight and bias an operation uses.

        Raises:
            ModelError: they are not those of one layer.
        """
        weight, bias = call["weight"], call["bias"]
        names = [call.module]
        names += [value.name.rpartition(".")[0] for value in (weight,) if _is_named(value)]
        for name in names:
            module = dict(self.network.named_modules()).get(name)
            if isinstance(module, kind) and _uses(module, weight, bias):
                return name
        raise self.unknown(
            f"{call.target} with a weight or bias that is not that of one {kind.__name__} (fold "
            "what computes it)"
        )

    def shape(self, node: fx.Node) -> Sequence[Any]:
        """The sizes of PyTorch's tensor, numbers or symbols."""
        return node.meta["val"].shape

    def _call(self, node: fx.Node) -> Call:
        target: Any = node.target
        if not isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage]
            name = getattr(target, "__name__", str(target))
            arguments: dict[str, Any] = {str(i): arg for i, arg in enumerate(node.args)}
        else:
            name = str(target)
            if _in_place(node):
                # aten.add_.Tensor is aten.add.Tensor, and the name of its input for the result.
                name = name.replace("_.", ".", 1)
            arguments = _bound(target, node)
        return Call(
            name=node.name,
            target=name,
            arguments={key: self._value(value) for key, value in arguments.items()},
            nodes={key: value for key, value in arguments.items() if isinstance(value, fx.Node)},
            result=node.meta.get("val"),
            module=self._module(node),
        )

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            result = argument.meta.get("val")
            if isinstance(result, int | torch.SymInt):
                return result
            return self.values[argument.name]
        if isinstance(argument, list | tuple):
            items: Sequence[Any] = argument
            return [self._value(item) for item in items]
        return argument

    def _placeholder(self, node: fx.Node) -> Value:
        signature, program = self.program.graph_signature, self.program
        known = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        if node.name not in known:
            return self.add(Input(), name=node.name)
        full = known[node.name]
        tensor = program.state_dict.get(full, program.constants.get(full))
        if not isinstance(tensor, Tensor):
            raise self.unknown(f"an input {node.name!r} that is no tensor")
        return Constant(tensor=tensor.detach(), name=full.removeprefix(f"{self.prefix}."))

    def _computed(self, node: fx.Node, call: Call) -> Value | None:
        """What an operation on constants alone gives, if all its sizes are fixed."""
        flat: list[Any] = []
        for value in call.arguments.values():
            flat += value if isinstance(value, list) else [value]
        constants = [value for value in flat if isinstance(value, Constant)]
        if not constants or any(isinstance(v, str | Zeros | torch.SymInt) for v in flat):
            return None
        arguments = fx.map_arg((node.args, node.kwargs), lambda n: _plain(self._value(n)))
        result = node.target(*arguments[0], **arguments[1])  # pyright: ignore[reportCallIssue]
        return Constant(tensor=result, name="") if isinstance(result, Tensor) else None

    def _output(self) -> str:
        (found,) = next(n for n in self.program.graph.nodes if n.op == "output").args
        if len(found) != 1 or not isinstance(found[0], fx.Node):
            raise self.unknown("several outputs")
        return self.tensor(self.values[found[0].name], "output")

    def _symbols(self) -> Mapping[str, str]:
        """PyTorch's symbols of the input's height and width."""
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and self.values.get(node.name) == node.name:
                sizes = self.shape(node)[2:]
                return {str(s): name for s, name in zip(sizes, "hw", strict=True)}
        return {}

    def _extent(self, size: torch.SymInt) -> Size:
        import sympy

        expression = size.node.expr
        if expression.is_number:
            return int(expression)
        names = self._symbols()
        symbols = {s: names.get(s.name) for s in expression.free_symbols}
        if None in symbols.values():
            raise self.unknown(f"a size of {expression}")
        replaced = expression.subs(
            {old: sympy.Symbol(new, integer=True, positive=True) for old, new in symbols.items()}
        )
        return Extent(text=str(replaced), expression=replaced)

    def _fixed_size(self, node: fx.Node) -> tuple[int, int] | None:
        sizes = self.shape(node)[2:]
        fixed = [isinstance(size, int) or size.node.expr.is_number for size in sizes]
        if not any(fixed):
            return None
        height, width = (size if isinstance(size, int) else size.node.hint for size in sizes)
        return int(height), int(width)

    def _module(self, node: fx.Node) -> str:
        stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
        path = list(stack.values())[-1][0] if stack else ""
        return path.removeprefix(self.prefix).removeprefix(".")

    def _where(self, node: fx.Node) -> str:
        module, trace = self._module(node), str(node.meta.get("stack_trace") or "")
        lines = [line.strip() for line in trace.splitlines() if line.strip()]
        source = f", {lines[-1]}" if lines else ""
        return f"{module!r}{source}" if module else f"the network itself{source}"


def _in_place(node: fx.Node) -> bool:
    schema: Any = getattr(node.target, "_schema", None)
    return schema is not None and schema.name.endswith("_")


def _short_name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _is_named(value: object) -> bool:
    return isinstance(value, Constant) and bool(value.name)


def _uses(module: nn.Module, weight: object, bias: object) -> bool:
    own = dict(module.named_parameters(recurse=False))
    found = {
        name: value.tensor
        for name, value in (("weight", weight), ("bias", bias))
        if isinstance(value, Constant)
    }
    same = own.keys() == found.keys()
    return same and all(torch.equal(own[name], found[name]) for name in own)


def _bound(target: Any, node: fx.Node) -> dict[str, Any]:
    """The arguments of an operation by their names, with what was left out."""
    arguments: dict[str, Any] = {}
    for index, argument in enumerate(target._schema.arguments):
        if index < len(node.args):
            arguments[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            arguments[argument.name] = node.kwargs[argument.name]
        else:
            arguments[argument.name] = argument.default_value
    return arguments


def _plain(value: Any) -> Any:
    return value.tensor if isinstance(value, Constant) else value
