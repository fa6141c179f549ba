"""The integer executor against the float32 network and against ONNX Runtime's W8A8, in one run.

python benchmarks/integer.py [--model dephasenet-lite] [--repeats 7]

Every side restores the same mosaic. They take turns, so that a machine that slows down slows all of
them; medians. A ratio above 1 is faster than float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from quantisp.api import find_model
from quantisp.cfa import mosaic
from quantisp.data import calibration_crops, default_calibration, find_images, read_picture
from quantisp.inference import prepare, restore
from quantisp.quantization import Graph, LayerPlan, Plan, capture, quantize, quantize_activations
from quantisp.quantization.integer import IntegerExecutor, integer_network

# Widths, power-of-two mode, and the least ratio that is aimed at.
SETTINGS = ((8, 8, False, 1.5), (8, 8, True, 2.5), (10, 12, False, 0.7), (16, 16, False, 0.35))


def take_turns(repeats: int, actions: list[Callable[[], object]]) -> list[float]:
    """The median time of each action in seconds, after one round to warm up."""
    for action in actions:
        action()
    times: list[list[float]] = []
    for _ in range(repeats):
        row: list[float] = []
        for action in actions:
            began = time.perf_counter()
            action()
            row.append(time.perf_counter() - began)
        times.append(row)
    return [statistics.median(column) for column in zip(*times, strict=True)]


def in_integers(
    model: nn.Module, graph: Graph, calibration: list[Tensor], bits: tuple[int, int], power: bool
) -> IntegerExecutor:
    default = LayerPlan(weight_bits=bits[0], activation_bits=bits[1], granularity="channel")
    plan = Plan(default=default)
    settings = replace(plan.activations, bias_bits=48, power_of_two=power)
    plan = replace(plan, activations=settings)
    weights = quantize(model, plan.without_activations())
    quantized = quantize_activations(weights, model, plan, calibration, graph=graph)
    return IntegerExecutor(integer_network(quantized), model)


def onnxruntime_w8a8(model: nn.Module, samples: Tensor, calibration: list[Tensor]) -> Callable:
    """ONNX Runtime's own static quantization, at its default level of optimisation."""
    import onnxruntime
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = iter([{name: x.numpy()} for x in calibration])

        def get_next(self) -> dict | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, out = Path(folder) / "float.onnx", Path(folder) / "w8a8.onnx"
        size = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        torch.onnx.export(
            model, (calibration[0],), path, dynamo=True, verbose=False, dynamic_shapes=(size,)
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        name = onnxruntime.InferenceSession(path).get_inputs()[0].name
        ort.quantize_static(
            path,
            out,
            Reader(name),
            per_channel=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
        )
        session = onnxruntime.InferenceSession(out, options, providers=["CPUExecutionProvider"])
    feed = {name: samples.numpy()}
    return lambda: session.run(None, feed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dephasenet-lite")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--without-onnxruntime", action="store_true")
    arguments = parser.parse_args()
    model = find_model(arguments.model).model
    pattern = model.pattern
    crops = calibration_crops(default_calibration()).batches[:2]
    calibration = [mosaic(crop[None], pattern) for batch in crops for crop in batch]
    samples = mosaic(read_picture(find_images(["sample"])[0].path).tensor(), pattern)
    graph = capture(model, calibration[0])
    network = prepare(find_model(arguments.model).model, torch.device("cpu"))
    names, actions = ["float32"], [lambda: restore(network, samples)]
    targets = [""]
    for weight_bits, bits, power, target in SETTINGS:
        executor = in_integers(model, graph, calibration, (weight_bits, bits), power)
        kinds = [f"{p.parts} x {p.kind}" for p in executor.products.values()]
        most = max(set(kinds), key=kinds.count)
        way = "powers of two" if power else "multipliers"
        names.append(f"W{weight_bits}A{bits}, {way} ({most} in {kinds.count(most)} layers)")
        actions.append(lambda executor=executor: executor(samples))
        targets.append(f"at least {target}")
    if not arguments.without_onnxruntime:
        names.append("ONNX Runtime W8A8 (not the same arithmetic)")
        actions.append(onnxruntime_w8a8(model, samples, calibration))
        targets.append("")
    times = take_turns(arguments.repeats, actions)
    height, width = samples.shape[2:]
    print(f"{arguments.model}, {height}x{width} px, {torch.get_num_threads()} threads")
    print(f"{'':60} {'seconds':>9} {'ratio':>7}  target")
    for name, seconds, target in zip(names, times, targets, strict=True):
        print(f"{name:60} {seconds:9.3f} {times[0] / seconds:7.2f}  {target}", flush=True)


if __name__ == "__main__":
    main()
