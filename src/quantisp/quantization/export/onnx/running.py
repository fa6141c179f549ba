"""Cutting a model at the network's tensors, and running the parts in ONNX Runtime.

What is given to a part are codes in float32, and so is what it gives: the few nodes that are put
around it for that are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from quantisp.errors import RunError
from quantisp.quantization.export.onnx.packages import needed

__all__ = [
    "Parts",
    "Values",
    "cut",
    "execute_onnxruntime",
    "onnxruntime_session",
    "run_onnxruntime",
]

Values = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Nodes of a model, each from the codes of its inputs to its own.

    Args:
        model: an ``onnx.ModelProto``.
        given: the input for each tensor that is given.
        found: the output for each tensor that is computed.
    """

    model: Any
    given: dict[str, str]
    found: dict[str, str]


def cut(model: Any, names: Sequence[str], given: Sequence[str]) -> Parts:
    """What computes some tensors from others.

    Args:
        model: as written; left as it is.
        names: of the tensors to compute.
        given: of those to compute them from.
    """
    onnx = needed("onnx", "export")
    nodes, constants = _kept(model, names, set(given))
    made_by = {node.output[0]: node for node in model.graph.node}
    before: list[Any] = []
    inputs: dict[str, str] = {}
    for name in given:
        if any(f"{name}/given" in node.input for node in nodes):
            inputs[name] = f"{name}/codes"
            fields = _integers(made_by[name], f"{name}/one")
            kind = "QuantizeLinear" if fields else "Identity"
            before.append(onnx.helper.make_node(kind, [inputs[name], *fields], [f"{name}/given"]))
    after: list[Any] = []
    outputs = {name: f"{name}/found" for name in names}
    for name, output in outputs.items():
        fields = _integers(made_by[name], f"{name}/one")
        kind = "DequantizeLinear" if fields else "Identity"
        after.append(onnx.helper.make_node(kind, [name, *fields], [output]))
    for node in (*before, *after):
        if len(node.input) > 1:
            one = onnx.numpy_helper.from_array(np.float32(1), node.input[1])
            zero = next(c for c in model.graph.initializer if c.name == node.input[2])
            constants |= {one.name: one, zero.name: zero}
    unknown = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in (*inputs.values(), *outputs.values())
    ]
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        [*before, *nodes, *after],
        "parts",
        [*(i for i in model.graph.input if i.name in used), *unknown[: len(inputs)]],
        unknown[len(inputs) :],
        list(constants.values()),
    )
    made = onnx.helper.make_model(
        graph, ir_version=model.ir_version, opset_imports=model.opset_import
    )
    return Parts(model=made, given=inputs, found=outputs)


def _kept(model: Any, names: Sequence[str], given: set[str]) -> tuple[list[Any], dict[str, Any]]:
    """The nodes and constants that some tensors follow from; others are taken as given."""
    onnx = needed("onnx", "export")
    made_by = {node.output[0]: node for node in model.graph.node}
    initializers = {value.name: value for value in model.graph.initializer}
    wanted: set[str] = set()
    constants: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        tensor = waiting.pop()
        if tensor in wanted or tensor not in made_by:
            continue
        wanted.add(tensor)
        for name in made_by[tensor].input:
            if name in initializers:
                constants[name] = initializers[name]
            elif name not in given:
                waiting.append(name)
    nodes: list[Any] = []
    for node in model.graph.node:
        if node.output[0] in wanted:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for place, name in enumerate(node.input):
                if name in given:
                    copy.input[place] = f"{name}/given"
            nodes.append(copy)
    return nodes, constants


def _integers(maker: Any, one: str) -> list[str]:
    """Scale and zero of a tensor of integers, or nothing."""
    return [one, maker.input[2]] if maker.op_type == "QuantizeLinear" else []


def onnxruntime_session(model: Any, *, optimized: bool = False) -> Any:
    """A session of ONNX Runtime on the CPU, with as many threads as PyTorch has.

    Args:
        model: an ``onnx.ModelProto``.
        optimized: at its default level, which gives other results; else not at all.
    """
    runtime = needed("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_onnxruntime(
    model: Any, names: Sequence[str], given: Values, x: Any, *, optimized: bool = False
) -> Values:
    """Some tensors of a model, each from the codes that its node's inputs are given.

    Args:
        model: an ``onnx.ModelProto``.
        names: of the tensors.
        given: codes by the tensor's name.
        x: the picture.
        optimized: at ONNX Runtime's default level.

    Raises:
        RunError: it does not run.
        SettingError: onnxruntime is not installed.
    """
    parts = cut(model, names, list(given))
    try:
        session = onnxruntime_session(parts.model, optimized=optimized)
        feed = {parts.given[name]: given[name].astype(np.float32) for name in parts.given}
        feed |= {i.name: x for i in session.get_inputs() if i.name not in feed}
        found = session.run([parts.found[name] for name in names], feed)
    # ONNX Runtime's errors are of many kinds.
    except Exception as error:
        raise RunError(
            f"expected a model that ONNX Runtime runs, found {str(error)[:200]!r}: "
            "use another version of onnxruntime"
        ) from error
    return dict(zip(names, found, strict=True))


def execute_onnxruntime(model: Any, x: Any, *, optimized: bool = False) -> Any:
    """The output of a model for a picture, as floats."""
    session = onnxruntime_session(model, optimized=optimized)
    return session.run(None, {model.graph.input[0].name: x})[0]
