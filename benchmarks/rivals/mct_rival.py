"""Model Compression Toolkit (Sony): post-training, gradient-based, and mixed precision.

The widths of a target are set in its own way: by a description of the target's capabilities,
derived from that of the toolkit's default target with other widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .task import Outcome, Task, Weights
from .torchvision_shim import declare_torchvision_operators
from .twin import Twin, WithFolding

# The widths that mixed precision may choose from.
CANDIDATE_BITS = (8, 7, 6, 5, 4, 3, 2)


def measure_mct(task: Task, variant: str) -> Outcome:
    """Quantize with MCT.

    Args:
        task: what to quantize; with ``mixed``, its ``weight_bits`` are the mean over all weights.
        variant: ``ptq``, ``gptq`` (its gradient-based one), ``gptq-plain`` (the same without scores
            by the Hessian), ``mixed``, or ``mixed-gptq``.
    """
    declare_torchvision_operators()
    import model_compression_toolkit as mct

    torch.manual_seed(task.seed)
    mixed = variant.startswith("mixed")
    capabilities = _capabilities(task, CANDIDATE_BITS if mixed else (task.weight_bits,))
    budget = _budget(task) if mixed else None
    config = mct.core.CoreConfig(
        mixed_precision_config=mct.core.MixedPrecisionQuantizationConfig() if mixed else None,
        quantization_config=mct.core.QuantizationConfig(
            activation_error_method=mct.core.QuantizationErrorMethod.MSE,
            weights_error_method=mct.core.QuantizationErrorMethod.MSE,
            weights_bias_correction=True,
        ),
    )
    asked: dict[str, Any] = {
        "representative_data_gen": lambda: _batches(task),
        "target_resource_utilization": budget,
        "core_config": config,
        "target_platform_capabilities": capabilities,
    }
    learns, scored = "gptq" in variant, variant != "gptq-plain"
    if learns:
        # Its loader's workers get a generator that cannot be pickled.
        torch.multiprocessing.set_start_method("fork", force=True)
        learning = mct.gptq.get_pytorch_gptq_config(
            n_epochs=task.iterations,
            use_hessian_based_weights=scored,
            use_hessian_sample_attention=scored,
        )
        learn = mct.gptq.pytorch_gradient_post_training_quantization
        model, _ = learn(OneInput(task.twin()), gptq_config=learning, **asked)
    else:
        model, _ = mct.ptq.pytorch_post_training_quantization(OneInput(task.twin()), **asked)
    weights, bits = _weights(model, task)
    settings = f"{variant}, symmetric, per channel, MSE ranges, bias correction"
    settings += f", {task.iterations} epochs" if learns else ""
    settings += ", sample attention" if learns and scored else ""
    notes: dict[str, str | float] = {}
    if mixed:
        settings += f", widths {', '.join(map(str, CANDIDATE_BITS))}, mean {task.weight_bits} bits"
        notes = _spread(weights, bits)
    if task.activation_bits is not None:
        settings += ", activations symmetric, per tensor, MSE ranges"
    network = None
    if task.activation_bits is not None:
        network = WithFolding(TwoInputs(model.eval()), task.network)
    return Outcome(
        weights=weights,
        network=network,
        settings=settings,
        notes=notes,
        bits=bits if mixed else None,
    )


class OneInput(nn.Module):
    """The twin behind one input, for the gradient-based method hands on one alone."""

    def __init__(self, twin: Twin) -> None:
        super().__init__()
        self.twin = twin
        self.phases = twin.coarse_head.in_channels
        self.up = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.twin(x[:, : self.phases], self.up(x[:, self.phases :]))


class TwoInputs(nn.Module):
    """What the toolkit made of :class:`OneInput`, with the twin's two inputs again."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, phases: Tensor, planes: Tensor) -> Tensor:
        return self.model(_joined(phases, planes))


def _joined(phases: Tensor, planes: Tensor) -> Tensor:
    return torch.cat([phases, functional.pixel_unshuffle(planes, 2)], dim=1)


def _batches(task: Task) -> Iterator[list[Tensor]]:
    """One crop at a time: each is a step of the gradient-based method."""
    for inputs in task.folded():
        yield from ([x] for x in _joined(*inputs).split(1))


def _capabilities(task: Task, widths: tuple[int, ...]) -> Any:
    """The toolkit's default target, with these widths of weights and those of activations."""
    from mct_quantizers import QuantizationMethod
    from model_compression_toolkit.target_platform_capabilities import constants
    from model_compression_toolkit.target_platform_capabilities.tpc_models.imx500_tpc.v1_0 import (
        tpc,
    )

    linear, _, default = tpc.get_op_quantization_configs()
    changes: dict[str, Any] = {"enable_activation_quantization": task.activation_bits is not None}
    if task.activation_bits is not None:
        changes["activation_n_bits"] = task.activation_bits
        changes["supported_input_activation_n_bits"] = (task.activation_bits,)
        changes["activation_quantization_method"] = QuantizationMethod.SYMMETRIC
    by_width = [
        linear.clone_and_edit(
            attr_to_edit={constants.KERNEL_ATTR: {constants.WEIGHTS_N_BITS: bits}}, **changes
        )
        for bits in widths
    ]
    return tpc.generate_tpc(
        default_config=default.clone_and_edit(**changes),
        base_config=by_width[0],
        mixed_precision_cfg_list=by_width,
        name="rivals",
    )


def _budget(task: Task) -> Any:
    import model_compression_toolkit as mct

    weights = sum(p.numel() for p in task.network.parameters() if p.ndim > 1)
    return mct.core.ResourceUtilization(weights_memory=weights * task.weight_bits / 8)


def _weights(model: nn.Module, task: Task) -> tuple[Weights, dict[str, int]]:
    """Weights and widths by the original's names; the toolkit has underscores for dots."""
    from mct_quantizers import PytorchQuantizationWrapper

    names = {f"twin.{name}".replace(".", "_"): name for name, _ in task.network.named_modules()}
    weights: dict[str, tuple[Tensor, Tensor | None]] = {}
    bits: dict[str, int] = {}
    for module_name, module in model.named_modules():
        if not isinstance(module, PytorchQuantizationWrapper):
            continue
        name = names[module_name]
        quantizer = module.weights_quantizers["weight"]
        weight = module.get_quantized_weights()["weight"].detach().clone()
        bias = module.layer.bias
        weights[name] = (weight, None if bias is None else bias.detach().clone())
        bits[name] = int(quantizer.num_bits)
    return weights, bits


def _spread(weights: Weights, bits: dict[str, int]) -> dict[str, str | float]:
    sizes = {name: weight.numel() for name, (weight, _) in weights.items()}
    mean = sum(sizes[name] * bits[name] for name in bits) / sum(sizes.values())
    counts = {width: list(bits.values()).count(width) for width in sorted(set(bits.values()))}
    layers = ", ".join(f"{count} at {width}" for width, count in counts.items())
    return {"mean_bits": mean, "layers": layers}
