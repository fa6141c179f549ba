"""Brevitas (AMD): what its post-training examples offer, on their own functions.

The order of ``brevitas_examples.imagenet_classification.ptq``: graph equalization, quantized
layers with ranges of least squared error, calibration, one rounding method, bias correction. The
examples' way to quantize a model and to learn a rounding is used as it is; their loops over a
loader of (image, label) are written out here, for our network has two inputs and no labels.

Activations are quantized by its ``layerwise`` backend: at the input of each convolution, while sums
and products stay in float. Its ``fx`` backend wants one scale for both inputs of every sum; in a
network whose feature maps go into two chains of sums it did not find one in minutes of searching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .task import Outcome, Task, Weights
from .torchvision_shim import declare_torchvision_operators
from .twin import WithFolding

EQUALIZE_ITERATIONS = 20
PERCENTILE = 99.999

Inputs = Sequence[tuple[Tensor, Tensor]]


def measure_brevitas(
    task: Task, rounding: str, *, equalize: bool = True, correct_bias: bool = True
) -> Outcome:
    """Quantize with one of Brevitas's rounding methods.

    Args:
        task: what to quantize.
        rounding: ``gptq``, ``gpfq``, ``qronos``, ``learned-round``, or ``nearest``.
        equalize: scale neighbouring layers to equal ranges first, biases merged.
        correct_bias: move each bias by the mean error of its channel in the end.
    """
    from brevitas.graph.quantize import preprocess_for_quantize

    torch.manual_seed(task.seed)
    inputs = task.folded()
    model = preprocess_for_quantize(
        task.twin(), equalize_iters=EQUALIZE_ITERATIONS if equalize else 0
    )
    model = _quantized(model, task)
    with torch.no_grad():
        model(*inputs[0])
    if task.activation_bits is not None:
        _calibrate(model, inputs)
    ROUNDINGS[rounding](model, inputs, task)
    if correct_bias:
        _correct_bias(model, inputs)
    settings = (
        f"{rounding}, layerwise backend, symmetric, per channel, MSE ranges, equalization "
        f"{EQUALIZE_ITERATIONS if equalize else 0} iterations, bias correction {correct_bias}"
    )
    if task.activation_bits is not None:
        settings += f", inputs of layers affine, per tensor, to the percentile {PERCENTILE}"
    network = None if task.activation_bits is None else WithFolding(model, task.network)
    return Outcome(weights=_weights(model), network=network, settings=settings)


def _quantized(model: nn.Module, task: Task) -> nn.Module:
    from brevitas_examples.imagenet_classification.ptq.ptq_common import quantize_model

    return quantize_model(
        model,
        backend="layerwise",
        weight_bit_width=task.weight_bits,
        act_bit_width=task.activation_bits,
        bias_bit_width=None,
        weight_quant_granularity="per_channel",
        act_quant_percentile=PERCENTILE,
        # One sign for all would waste a bit after each ReLU.
        act_quant_type="asym",
        scale_factor_type="float_scale",
        quant_format="int",
        layerwise_first_last_bit_width=task.weight_bits,
        weight_param_method="mse",
    ).eval()


@torch.no_grad()
def _calibrate(model: nn.Module, inputs: Inputs) -> None:
    from brevitas.graph.calibrate import calibration_mode

    with calibration_mode(model):
        for x in inputs:
            model(*x)


@torch.no_grad()
def _correct_bias(model: nn.Module, inputs: Inputs) -> None:
    from brevitas.graph.calibrate import bias_correction_mode

    with bias_correction_mode(model):
        for x in inputs:
            model(*x)


@torch.no_grad()
def _layer_by_layer(model: nn.Module, inputs: Inputs, mode: Callable[..., Any]) -> None:
    with mode(model) as walking:
        for _ in range(walking.num_layers):
            for x in inputs:
                walking.model(*x)
            walking.update()


def _nearest(_model: nn.Module, _inputs: Inputs, _task: Task) -> None:
    """Quantized layers round to nearest by themselves."""


def _gptq(model: nn.Module, inputs: Inputs, task: Task) -> None:
    from brevitas.graph.gptq import gptq_mode

    use_quant_activations = task.activation_bits is not None
    mode = partial(gptq_mode, act_order=True, use_quant_activations=use_quant_activations)
    _layer_by_layer(model, inputs, mode)


def _gpfq(model: nn.Module, inputs: Inputs, _task: Task) -> None:
    from brevitas.graph.gpfq import gpfq_mode

    _layer_by_layer(model, inputs, partial(gpfq_mode, act_order=True))


def _qronos(model: nn.Module, inputs: Inputs, _task: Task) -> None:
    from brevitas.graph.gpfq import gpfq_mode
    from brevitas.graph.qronos import Qronos

    qronos = partial(Qronos, alpha=1e-6)
    _layer_by_layer(model, inputs, partial(gpfq_mode, act_order=True, algorithm_impl=qronos))


def _learned_round(model: nn.Module, inputs: Inputs, task: Task) -> None:
    from brevitas_examples.common.learned_round import learned_round_trainer as trainer
    from brevitas_examples.imagenet_classification.ptq import learned_round_utils as utils

    config = utils.parse_args_to_dataclass(_learned_round_arguments(task))
    # Half precision is for accelerators; float32 is the more exact of the two.
    config.training_args.use_amp = False
    trainer.LearnedRoundTrainer(config=config).train(
        model=model,
        model_forward=_forward,
        block_forward=utils.vision_block_forward,
        data_loader=inputs,
        cache=utils.CacheVision(),
        get_blocks_fn=partial(trainer.get_blocks, block_check_fn=utils.is_layer),
        keep_gpu=True,
    )


def _forward(model: nn.Module, x: tuple[Tensor, Tensor]) -> None:
    model(*x)


def _learned_round_arguments(task: Task) -> Any:
    """The examples' own defaults, layer by layer."""
    # The examples' options import torchvision, for its names of networks.
    declare_torchvision_operators()
    from brevitas_examples.imagenet_classification.ptq.ptq_imagenet_args import create_args_parser

    asked = ["--calibration-dir", "", "--validation-dir", ""]
    asked += ["--learned-round", "hard_sigmoid", "--learned-round-mode", "layerwise"]
    asked += ["--learned-round-iters", str(task.iterations)]
    return create_args_parser().parse_args(asked)


ROUNDINGS: dict[str, Callable[[nn.Module, Inputs, Task], None]] = {
    "nearest": _nearest,
    "gptq": _gptq,
    "gpfq": _gpfq,
    "qronos": _qronos,
    "learned-round": _learned_round,
}


@torch.no_grad()
def _weights(model: nn.Module) -> Weights:
    from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer

    return {
        name: (layer.quant_weight().value.clone(), layer.bias.detach().clone())
        for name, layer in model.named_modules()
        if isinstance(layer, QuantWeightBiasInputOutputLayer)
    }
