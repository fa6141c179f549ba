"""torchao, PyTorch's own: post-training quantization of an exported program, for x86 processors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .task import Outcome, Task, Weights
from .twin import WithFolding


def measure_torchao(task: Task) -> Outcome:
    """Quantize weights and activations to 8 bits, as its quantizer for x86 does."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(task.seed)
    inputs = task.folded()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    program = torch.export.export(task.twin(), inputs[0], dynamic_shapes=_any_size()).module()
    prepared = prepare_pt2e(program, quantizer)
    with torch.no_grad():
        for x in inputs:
            prepared(*x)
    # The measure calls eval(), which an exported program refuses otherwise.
    converted = allow_exported_model_train_eval(convert_pt2e(prepared))
    return Outcome(
        weights=_weights(converted),
        network=WithFolding(converted, task.network),
        settings="PT2E for x86, symmetric, per channel, activations affine, per tensor",
        notes={"activations": "inputs of convolutions, and what its quantizer joins to them"},
    )


def _any_size() -> tuple[dict[int, Any], dict[int, Any]]:
    auto = torch.export.Dim.AUTO
    return {0: auto, 2: auto, 3: auto}, {0: auto, 2: auto, 3: auto}


@torch.no_grad()
def _weights(model: Any) -> Weights:
    """Dequantized, from the convolutions of the graph; a bias tells the layer's name."""
    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for node in model.graph.nodes:
        if "conv2d" not in str(node.target):
            continue
        _, weight, bias = node.args[:3]
        codes, scale, zero_point, axis = weight.args[:4]
        codes, scale, zero_point = (_constant(model, x) for x in (codes, scale, zero_point))
        shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
        value = (codes.float() - zero_point.view(shape)) * scale.float().view(shape)
        found[bias.target.removesuffix(".bias")] = (value, _constant(model, bias).clone())
    return found


def _constant(model: nn.Module, node: Any) -> Tensor:
    value = model
    for part in node.target.split("."):
        value = getattr(value, part)
    return value.detach()  # pyright: ignore[reportCallIssue]
