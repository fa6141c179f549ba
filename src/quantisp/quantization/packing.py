"""A quantized network as named tensors and texts, which is what its file holds; and back.

::

    codes/LAYER     int8 to 8 bits, else int16, in the weight's shape
    scale/LAYER     float32, 0-d or one for each output channel
    state/NAME      everything else of the network's state dict: biases, float layers, buffers
    plan, decisions the texts

and, where activations are in integers::

    activations/scales  float64, one for each group of tensors that shares a quantizer
    bias/NODE           float64, the bias of each use of a layer, corrected where it was
    example             a text: the shape of an input to capture the graph with

The weights themselves are not there, for they are ``codes * scale``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from quantisp.errors import ModelError, PlanError, QuantispError
from quantisp.quantization.activation_packing import (
    is_of_activations,
    pack_activations,
    unpack_activations,
)
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.layers import Layer, find_layers
from quantisp.quantization.model import QuantizedModel, codes_dtype, verify_codes
from quantisp.quantization.plan import Plan

__all__ = ["pack_quantized", "unpack_quantized"]

Packed = tuple[dict[str, Tensor], dict[str, str]]


def pack_quantized(quantized: QuantizedModel) -> Packed:
    """The tensors and the texts of a quantized network; no two tensors share memory."""
    weights = {_weight_of(name) for name in quantized.codes}
    tensors = {
        **{f"codes/{name}": codes for name, codes in quantized.codes.items()},
        **{f"scale/{name}": scale for name, scale in quantized.scales.items()},
        **{
            f"state/{name}": value.detach()
            for name, value in quantized.network.state_dict().items()
            if name not in weights
        },
    }
    texts = {"plan": quantized.plan.to_json(), "decisions": json.dumps(quantized.decisions)}
    if quantized.activations is not None:
        further, example = pack_activations(quantized.activations)
        tensors |= further
        texts["example"] = example
    return {
        name: value.cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }, texts


def unpack_quantized(
    network: nn.Module, tensors: Mapping[str, Tensor], texts: Mapping[str, str]
) -> QuantizedModel:
    """The quantized network that was packed, with the same codes and the same outputs.

    Args:
        network: of the same structure as the one that was quantized, whatever its weights; it is
            not changed.
        tensors, texts: of :func:`pack_quantized`, from a source that is not trusted.

    Returns:
        In evaluation mode, without gradients.

    Raises:
        ModelError: they are damaged, or of another network.
    """
    plan, decisions = _read_texts(texts)
    try:
        resolved = plan.resolve(network)
    except PlanError as error:
        raise ModelError(f"the plan does not fit the network: {error}") from error
    layers = find_layers(network)
    planned = [name for name, entry in resolved.items() if entry.weight_bits is not None]
    state = dict(network.state_dict())
    others = state.keys() - {_weight_of(name) for name in planned}
    _check_names(
        {name: value for name, value in tensors.items() if not is_of_activations(name)},
        {f"codes/{n}" for n in planned}
        | {f"scale/{n}" for n in planned}
        | {f"state/{n}" for n in others},
    )
    weights = {name: _read_weight(layers[name], plan, tensors) for name in planned}
    for name in others:
        value = tensors[f"state/{name}"]
        _check_form(f"state/{name}", value, state[name].shape, state[name].dtype)
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"expected finite values, state/{name} has NaN or infinity")
        state[name] = value
    for name, weight in weights.items():
        state[_weight_of(name)] = weight.dequantize()
    filled = copy.deepcopy(network)
    filled.load_state_dict(state)
    filled = filled.eval().requires_grad_(False)
    activations = unpack_activations(filled, plan, weights, tensors, texts.get("example"))
    quantized = QuantizedModel(
        filled, plan=plan, weights=weights, decisions=decisions, activations=activations
    )
    try:
        verify_codes(quantized)
    except QuantispError as error:
        raise ModelError(f"the codes do not fit the network: {error}") from error
    return quantized


def _weight_of(name: str) -> str:
    return f"{name}.weight" if name else "weight"


def _read_texts(texts: Mapping[str, str]) -> tuple[Plan, tuple[str, ...]]:
    try:
        plan = Plan.from_json(texts["plan"])
        decisions = json.loads(texts["decisions"])
    except (KeyError, ValueError, PlanError) as error:
        raise ModelError(f"the plan or the decisions are missing or garbled ({error})") from error
    if not isinstance(decisions, list) or not all(isinstance(line, str) for line in decisions):
        raise ModelError("expected a list of texts as decisions, found something else")
    return plan, tuple(cast("list[str]", decisions))


def _check_names(tensors: Mapping[str, Tensor], expected: set[str]) -> None:
    differing = sorted(expected ^ tensors.keys())
    if differing:
        name = differing[0]
        found = "lacks" if name in expected else "has a further"
        raise ModelError(f"expected the tensors of this network and plan, the file {found} {name}")


def _read_weight(layer: Layer, plan: Plan, tensors: Mapping[str, Tensor]) -> QuantizedWeight:
    entry = plan.for_layer(layer.name)
    int_format = entry.weight_format
    if int_format is None:
        raise ModelError(f"expected a width for layer {layer.name!r}, found float")
    axis = layer.axis(entry.granularity)
    codes, scale = tensors[f"codes/{layer.name}"], tensors[f"scale/{layer.name}"]
    shape = layer.weight.shape
    _check_form(f"codes/{layer.name}", codes, shape, codes_dtype(int_format))
    groups = 1 if axis is None else layer.scale_groups
    channels = () if axis is None else (groups * shape[axis],)
    _check_form(f"scale/{layer.name}", scale, torch.Size(channels), torch.float32)
    least, greatest = int(codes.min()), int(codes.max())
    if least < int_format.qmin or greatest > int_format.qmax:
        raise ModelError(
            f"expected codes from {int_format.qmin} to {int_format.qmax}, codes/{layer.name} are "
            f"from {least} to {greatest}"
        )
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ModelError(f"expected finite scales above 0, scale/{layer.name} has others")
    return QuantizedWeight(codes=codes.to(torch.int32), scale=scale, axis=axis, groups=groups)


def _check_form(name: str, value: Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    if value.shape != shape or value.dtype != dtype:
        raise ModelError(
            f"expected {name} as {dtype} of {tuple(shape)}, found {value.dtype} of "
            f"{tuple(value.shape)}"
        )
