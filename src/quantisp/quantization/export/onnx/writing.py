"""Writing ONNX files, and running what was written before it is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from quantisp.errors import RunError, SettingError
from quantisp.files import write_atomically
from quantisp.quantization.export.onnx.builder import OPSET
from quantisp.quantization.export.onnx.checking import (
    NodeRunner,
    check_input,
    check_model,
    lasting,
)
from quantisp.quantization.export.onnx.packages import needed
from quantisp.quantization.export.onnx.running import execute_onnxruntime, run_onnxruntime
from quantisp.quantization.export.onnx.running_qonnx import (
    execute_qonnx,
    run_qonnx,
    with_known_shapes,
)
from quantisp.quantization.export.onnx.scales import tensor_scales
from quantisp.quantization.export.onnx.writer import build_onnx, build_qonnx
from quantisp.quantization.export.request import ExportReport, ExportRequest
from quantisp.quantization.export.shapes import check_sample_size, size_step
from quantisp.quantization.integer.executor import IntegerExecutor

__all__ = ["write_onnx", "write_qonnx"]

# A second size, so that one that is fixed by accident is noticed.
NOISE_PX = 40


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What runs a file.

    Args:
        package: its name.
        extra: of quantisp, that brings it.
        run_nodes: each for itself.
        run_whole: from a picture to the output.
    """

    package: str
    extra: str
    run_nodes: NodeRunner
    run_whole: Callable[[Any, Any], Any]

    @property
    def described(self) -> str:
        """The package and its version."""
        version = getattr(needed(self.package, self.extra), "__version__", "")
        return f"{self.package} {version}".rstrip()


ONNXRUNTIME = Runtime(
    package="onnxruntime",
    extra="export",
    run_nodes=run_onnxruntime,
    run_whole=execute_onnxruntime,
)
QONNX = Runtime(package="qonnx", extra="qonnx", run_nodes=run_qonnx, run_whole=execute_qonnx)


def write_onnx(request: ExportRequest) -> ExportReport:
    """Write an ONNX file of opset 21, and verify it in ONNX Runtime without optimisations.

    Raises:
        ModelError: an operation, a width or a size that it cannot have.
        RunError: what was written differs by more than it may.
        SettingError: a package is not installed.
    """
    _check_packages(request, ONNXRUNTIME)
    widths = [own.weights.bits for _, own in request.network if own.weights is not None]
    kinds = Counter(f"INT{next(k for k in (4, 8, 16) if bits <= k)}" for bits in widths)
    facts = {"weights_stored_as": dict(kinds)}
    return _written(request, build_onnx(request.network, request.size), facts, ONNXRUNTIME)


def write_qonnx(request: ExportRequest) -> ExportReport:
    """Write a QONNX file, and verify it with the qonnx package.

    Raises:
        ModelError, RunError, SettingError: as ``write_onnx``.
    """
    _check_packages(request, QONNX)
    widths = Counter(own.weights.bits for _, own in request.network if own.weights is not None)
    facts = {"weight_bits": {f"{bits}": count for bits, count in sorted(widths.items())}}
    model = with_known_shapes(build_qonnx(request.network, request.size))
    return _written(request, model, facts, QONNX, scales=tensor_scales(request.network))


def _check_packages(request: ExportRequest, runtime: Runtime) -> None:
    needed("onnx", runtime.extra)
    if not request.unverified:
        needed(runtime.package, runtime.extra)


def _written(
    request: ExportRequest,
    model: Any,
    facts: Mapping[str, Any],
    runtime: Runtime,
    scales: Mapping[str, float] | None = None,
) -> ExportReport:
    """Write a model, read it again, and compare it with the network."""
    path = request.folder / f"{request.name}.onnx"
    request.on_progress("writing", 0, 1)
    write_atomically(path, model.SerializeToString())
    read = _read(path, runtime)
    found = _described(request, read, path) | dict(facts)
    try:
        by = runtime.described
    except SettingError as error:
        return ExportReport(verified=f"not verified: {error}", facts=found)
    inputs = _inputs(request)
    check = check_model(
        read,
        request.network,
        inputs,
        runtime.run_nodes,
        scales=scales,
        on_node=lambda done, total: request.on_progress("verifying", done, total),
    )
    check.refuse()
    sizes = [f"{x.shape[3]}x{x.shape[2]}" for x in inputs]
    found["verified_on"] = f"{'the sample and noise' if len(sizes) > 1 else 'noise'} of " + (
        " and ".join(dict.fromkeys(sizes)) + " px"
    )
    return ExportReport(
        verified=f"each node, given equal inputs, run by {by}",
        facts=found | check.facts() | {"output": _whole_network(request, read, inputs[0], runtime)},
    )


def _read(path: Path, runtime: Runtime) -> Any:
    """The file as others read it.

    Raises:
        RunError: it does not keep to the standard.
    """
    onnx = needed("onnx", runtime.extra)
    read = onnx.load(path)
    try:
        onnx.checker.check_model(read, full_check=runtime is ONNXRUNTIME)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RunError(
            f"expected a valid ONNX file, its checker found {str(error)[:200]!r}: "
            "nothing was written; use another version of onnx"
        ) from error
    return read


def _inputs(request: ExportRequest) -> list[Float[Tensor, "1 c h w"]]:
    """The sample, and noise of another size; of the one size that the file is for, if it is."""
    network, sample = request.network, request.sample.x
    size = network.graph.size or request.size
    channels = sample.shape[1]
    if size is not None:
        check_sample_size(network, (1, channels, *size))
        noise = check_input((1, channels, *size))
        return [sample, noise] if tuple(sample.shape[2:]) == size else [noise]
    step = size_step(network, channels)
    rows = -(-NOISE_PX // step) * step
    return [sample, check_input((1, channels, rows, rows + step))]


def _whole_network(request: ExportRequest, model: Any, x: Tensor, runtime: Runtime) -> str:
    """How far the output is when nothing is given on the way, in words."""
    network, output = request.network, request.network.graph.output
    executor = IntegerExecutor(network.with_accumulator(lasting(network)))
    steps = network.integers[output].codes.qmax
    found = np.rint(runtime.run_whole(model, x.numpy()).astype(np.float64) * steps)
    difference = np.abs(found - executor.run(x, [output])[output].numpy())
    if not difference.any():
        return "equal, run as a whole"
    share = np.count_nonzero(difference) / difference.size
    return f"differs in {share:.3%} of values, by {int(difference.max())} at most, run as a whole"


def _described(request: ExportRequest, model: Any, path: Path) -> dict[str, Any]:
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {
        "file": path.name,
        "file_bytes": path.stat().st_size,
        "opset": OPSET,
        "input_shape": " x ".join(map(str, sizes)),
        "tie_rule": request.network.tie_rule,
    }
