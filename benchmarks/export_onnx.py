"""How far runtimes are from the integers with ONNX files: each node on equal inputs, and the whole.

python benchmarks/export_onnx.py [--model dephasenet-lite] [--px 128]

ONNX Runtime without optimisations, as exports are verified; at its default level; and OpenVINO in
float32 precision (a development dependency). Nodes see blocks of noise and extremes, the whole
network a crop of a packaged photograph.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch

from quantisp.api import find_model
from quantisp.cfa import mosaic
from quantisp.data import calibration_crops, default_calibration, find_images, read_picture
from quantisp.errors import RunError
from quantisp.quantization import LayerPlan, Plan, capture, quantize, quantize_activations
from quantisp.quantization.export.onnx import (
    build_onnx,
    check_input,
    check_model,
    run_onnxruntime,
)
from quantisp.quantization.export.onnx.running import cut, execute_onnxruntime
from quantisp.quantization.integer import IntegerExecutor, IntegerNetwork, integer_network

# Widths, powers of two, tie rule.
SETTINGS = (
    (8, 8, False, "half_up"),
    (8, 8, True, "half_even"),
    (8, 8, True, "half_up"),
    (10, 12, False, "half_up"),
    (16, 16, False, "half_up"),
)


def openvino_run(model: Any, feed: dict[str, Any]) -> dict[str, Any]:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = compiled(feed)
    # In the order of the graph; its names may be others.
    return {output.name: found[place] for place, output in enumerate(model.graph.output)}


def openvino_nodes(model: Any, names: Any, given: Any, x: Any) -> dict[str, Any]:
    parts = cut(model, names, list(given))
    feed = {parts.given[name]: given[name].astype(np.float32) for name in parts.given}
    feed |= {i.name: x for i in parts.model.graph.input if i.name not in feed}
    for value in parts.model.graph.input:
        # It wants to know how many axes there are.
        value.CopyFrom(
            onnx.helper.make_tensor_value_info(
                value.name, onnx.TensorProto.FLOAT, feed[value.name].shape
            )
        )
    found = openvino_run(parts.model, feed)
    return {name: found[parts.found[name]] for name in names}


def default_level(model: Any, names: Any, given: Any, x: Any) -> Any:
    return run_onnxruntime(model, names, given, x, optimized=True)


# A way to run nodes, and one to run the whole.
RUNTIMES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ONNX Runtime, no optimisations": (run_onnxruntime, execute_onnxruntime),
    "ONNX Runtime, default level": (
        default_level,
        lambda model, x: execute_onnxruntime(model, x, optimized=True),
    ),
    "OpenVINO": (openvino_nodes, lambda model, x: openvino_run(model, {"input": x})["output"]),
}


def in_integers(model: Any, graph: Any, calibration: Any, setting: Any) -> IntegerNetwork:
    weight_bits, bits, power, tie_rule = setting
    default = LayerPlan(weight_bits=weight_bits, activation_bits=bits, granularity="channel")
    plan = Plan(default=default)
    settings = replace(plan.activations, bias_bits=48, power_of_two=power, tie_rule=tie_rule)
    # The grids of what is added to each other have to go together.
    settings = replace(settings, input_bits=bits) if power else settings
    plan = replace(plan, activations=settings)
    weights = quantize(model, plan.without_activations())
    return integer_network(quantize_activations(weights, model, plan, calibration, graph=graph))


def shown(network: IntegerNetwork, name: str, x: torch.Tensor) -> str:
    run_nodes, run_whole = RUNTIMES[name]
    model = build_onnx(network)
    try:
        nodes = check_model(model, network, [check_input((1, *x.shape[1:]))], run_nodes)
        found = run_whole(model, x.numpy())
    except (RunError, RuntimeError, ImportError) as error:
        return f"does not run it: {str(error).splitlines()[0][:120]}"
    broken = sum(n.largest > n.allowed for n in nodes.nodes)
    output = network.graph.output
    codes = np.rint(found.astype(np.float64) * network.integers[output].codes.qmax)
    difference = np.abs(codes - IntegerExecutor(network).run(x, [output])[output].numpy())
    share = np.count_nonzero(difference) / difference.size
    return (
        f"{nodes.rate:10.2e} {nodes.largest:8d} {broken:8d} {share:10.2%} {difference.max():8.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dephasenet-lite")
    parser.add_argument("--px", type=int, default=128)
    arguments = parser.parse_args()
    model = find_model(arguments.model).model
    crops = calibration_crops(default_calibration()).batches[:2]
    calibration = [mosaic(crop[None], model.pattern) for batch in crops for crop in batch]
    picture = read_picture(find_images(["sample"])[0].path).tensor()
    samples = mosaic(picture, model.pattern)[:, :, 192:, 192:]
    x = samples[:, :, : arguments.px, : arguments.px].contiguous()
    graph = capture(model, calibration[0])
    print(f"{arguments.model}, {arguments.px}x{arguments.px} px, {torch.get_num_threads()} threads")
    print(f"{'':32} {'nodes':>10} {'largest':>8} {'against':>8} {'output':>10} {'largest':>8}")
    print(f"{'':32} {'differing':>10} {'':8} {'the rule':>8} {'differing':>10}")
    for setting in SETTINGS:
        network = in_integers(model, graph, calibration, setting)
        weight_bits, bits, power, tie_rule = setting
        print(f"W{weight_bits}A{bits}, {'powers of two' if power else 'multipliers'}, {tie_rule}")
        for name in RUNTIMES:
            print(f"  {name:30} {shown(network, name, x)}", flush=True)


if __name__ == "__main__":
    main()
