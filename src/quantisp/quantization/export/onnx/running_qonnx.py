"""Running QONNX models with the qonnx package, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantisp.errors import RunError
from quantisp.quantization.export.onnx.codecs import QONNX_DOMAIN
from quantisp.quantization.export.onnx.packages import needed
from quantisp.quantization.export.onnx.running import Values, cut, onnxruntime_session

__all__ = ["execute_qonnx", "run_qonnx", "with_known_shapes"]


def run_qonnx(model: Any, names: Sequence[str], given: Values, x: Any) -> Values:
    """As :func:`run_onnxruntime`, by the qonnx package, node by node.

    Raises:
        RunError: it does not run.
        SettingError: qonnx is not installed.
    """
    wrapper = needed("qonnx.core.modelwrapper", "qonnx")
    execution = needed("qonnx.core.onnx_exec", "qonnx")
    parts = cut(model, names, list(given))
    feed = {parts.given[name]: given[name].astype(np.float32) for name in parts.given}
    feed |= {i.name: x for i in parts.model.graph.input if i.name not in feed}
    try:
        sized = with_shapes(parts.model, feed)
        found = execution.execute_onnx(wrapper.ModelWrapper(sized), feed)
    # Its errors are of many kinds.
    except Exception as error:
        raise RunError(
            f"expected a model that qonnx runs, found {str(error)[:200]!r}: "
            "use another version of qonnx"
        ) from error
    return {name: found[parts.found[name]] for name in names}


def execute_qonnx(model: Any, x: Any) -> Any:
    """The output of a QONNX model, by the qonnx package."""
    wrapper = needed("qonnx.core.modelwrapper", "qonnx")
    execution = needed("qonnx.core.onnx_exec", "qonnx")
    feed = {model.graph.input[0].name: x}
    found = execution.execute_onnx(wrapper.ModelWrapper(with_shapes(model, feed)), feed)
    return found[model.graph.output[0].name]


def with_known_shapes(model: Any) -> Any:
    """A QONNX model with the shapes that are known before it runs: all, if its size is."""
    onnx = needed("onnx", "qonnx")
    inferred = onnx.shape_inference.infer_shapes(shape_twin(model), data_prop=True)
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred.graph.value_info)
    model.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(c.name, c.data_type, list(c.dims))
        for c in model.graph.initializer
    )
    return model


def with_shapes(model: Any, feed: Values) -> Any:
    """The model with the shape of every tensor, which qonnx wants to know before it runs one.

    They are seen in a run of ONNX Runtime of :func:`shape_twin`.
    """
    onnx = needed("onnx", "qonnx")
    plain, sized = shape_twin(model), onnx.ModelProto()
    sized.CopyFrom(model)
    final = [output.name for output in plain.graph.output]
    inside = [n for node in plain.graph.node for n in node.output if n not in final]
    plain.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
    values = onnxruntime_session(plain).run([*final, *inside], feed)
    seen: dict[str, Any] = dict(zip([*final, *inside], values, strict=True))
    seen |= dict(feed)
    seen |= {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}

    def described(name: str) -> Any:
        kind = onnx.helper.np_dtype_to_tensor_dtype(seen[name].dtype)
        return onnx.helper.make_tensor_value_info(name, kind, seen[name].shape)

    graph = sized.graph
    for field in (graph.input, graph.output):
        names = [value.name for value in field]
        del field[:]
        field.extend(described(name) for name in names)
    inputs = {value.name for value in graph.input}
    del graph.value_info[:]
    graph.value_info.extend(
        described(name) for name in seen if name not in inputs and name not in final
    )
    return sized


def shape_twin(model: Any) -> Any:
    """A QONNX model of ONNX's operations alone, whose tensors have the same shapes.

    Quant nodes do nothing in it, and nothing is looked up, for there are other codes.
    """
    onnx = needed("onnx", "qonnx")
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    tables = {c.name for c in model.graph.initializer if len(c.dims) == 1}
    for node in twin.graph.node:
        if node.domain == QONNX_DOMAIN:
            changed = onnx.helper.make_node("Identity", node.input[:1], node.output)
        elif node.op_type == "Gather" and node.input[0] in tables:
            to = onnx.TensorProto.FLOAT
            changed = onnx.helper.make_node("Cast", node.input[1:], node.output, to=to)
        else:
            continue
        node.CopyFrom(changed)
    return twin
