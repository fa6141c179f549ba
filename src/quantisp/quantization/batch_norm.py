"""Batch normalisation folded into the layer before it, found by watching one forward pass.

In evaluation mode a batch normalisation is a gain and an offset for each channel, and so is the
output of the layer before it: ``gain (W x + b - mean) + offset`` is ``W' x + b'`` with
``W' = gain W`` and ``b' = gain (b - mean) + offset``.

Source: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018, section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from quantisp.errors import ModelError
from quantisp.quantization.layers import Layer, find_layers, over_channels

__all__ = ["BATCH_NORMS", "FoldedNetwork", "fold_batch_norms", "without_batch_norms"]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# The largest change of the output that rounding explains, as a share of its largest value.
CLOSE = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedNetwork:
    """A network, and what became of its batch normalisations.

    Args:
        network: a copy, in evaluation mode; each folded one is an ``nn.Identity``.
        folded: the layer that each folded one went into, by name.
        left: why each other one stays in float, by name.
    """

    network: nn.Module
    folded: Mapping[str, str]
    left: Mapping[str, str]


def fold_batch_norms(model: nn.Module, example: Float[Tensor, "_ _ _ _"]) -> FoldedNetwork:
    """Fold every batch normalisation that alone takes the output of one layer.

    Args:
        model: float32 weights; it is not changed.
        example: an input of the network; what is folded is checked by its output for it.

    Returns:
        The folded network, equal to ``model`` in evaluation mode up to float32 rounding.
    """
    network = copy.deepcopy(model).eval()
    norms = {name: m for name, m in _modules(network) if isinstance(m, BATCH_NORMS)}
    if not norms:
        return FoldedNetwork(network=network, folded={}, left={})
    example = example.to(next(network.parameters(), example).device)
    watch = _watched(network, example)
    folded: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, norm in norms.items():
        layer, reason = _partner(norm, watch)
        if layer is not None:
            found = _folded(network, layer.name, name)
            if _gives(found, example, watch.output):
                network, folded[name] = found, layer.name
                continue
            reason = "the network's output is another without it"
        left[name] = reason
    return FoldedNetwork(network=network, folded=folded, left=left)


def without_batch_norms(model: nn.Module, folded: Mapping[str, str]) -> nn.Module:
    """The structure that folding left behind, whatever its weights.

    Args:
        model: as before folding; it is not changed.
        folded: as of :class:`FoldedNetwork`.

    Raises:
        ModelError: the network has no such normalisation, or no such layer.
    """
    network = copy.deepcopy(model)
    modules = dict(_modules(network))
    layers = find_layers(network)
    for norm_name, layer_name in folded.items():
        norm, layer = modules.get(norm_name), layers.get(layer_name)
        if not isinstance(norm, BATCH_NORMS) or layer is None or layer.output_axis is None:
            raise ModelError(
                f"expected a batch normalisation {norm_name!r} after a layer {layer_name!r}, the "
                "network has none"
            )
        module = cast("nn.Conv2d", layer.module)
        if module.bias is None:
            bias = module.weight.new_zeros(norm.num_features)
            module.bias = nn.Parameter(bias, requires_grad=module.weight.requires_grad)
        _remove(network, norm)
    return network


@dataclass(frozen=True, kw_only=True, eq=False)
class _Watch:
    """One forward pass: what came out of each layer, what went into each normalisation.

    Args:
        layers: those with an output, by the identity of their modules.
        outputs: of each module, in order.
        inputs: of each module, in order.
        uses: how many operations took each tensor, by its identity.
        output: of the network.
    """

    layers: Mapping[int, Layer]
    outputs: Mapping[int, Sequence[Tensor]]
    inputs: Mapping[int, Sequence[Tensor]]
    uses: Mapping[int, int]
    output: Tensor


class _Uses(TorchDispatchMode):
    """Counts the operations that take each tensor, and keeps the tensors alive."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[int, int] = {}
        self.kept: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = pytree.arg_tree_leaves(*args, **(kwargs or {}))
        for tensor in {id(x): x for x in given if isinstance(x, Tensor)}.values():
            self.counts[id(tensor)] = self.counts.get(id(tensor), 0) + 1
            self.kept.append(tensor)
        return func(*args, **(kwargs or {}))


def _watched(network: nn.Module, example: Tensor) -> _Watch:
    layers = {id(layer.module): layer for layer in find_layers(network).values()}
    outputs: dict[int, list[Tensor]] = {}
    inputs: dict[int, list[Tensor]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.setdefault(id(module), []).append(output)
        inputs.setdefault(id(module), []).extend(given)

    hooks = [
        module.register_forward_hook(note)
        for _, module in _modules(network)
        if id(module) in layers or isinstance(module, BATCH_NORMS)
    ]
    try:
        with torch.no_grad(), _Uses() as uses:
            output: Tensor = network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return _Watch(layers=layers, outputs=outputs, inputs=inputs, uses=uses.counts, output=output)


def _partner(norm: nn.Module, watch: _Watch) -> tuple[Layer | None, str]:
    """The layer that a normalisation can go into, or why there is none."""
    given = watch.inputs.get(id(norm), ())
    if not getattr(norm, "track_running_stats", False):
        return None, "it normalises by what it sees, not by what it has learned"
    if len(given) != 1:
        return None, f"the network uses it {len(given)} times"
    before = next(
        (
            i
            for i, found in watch.outputs.items()
            if i in watch.layers and any(x is given[0] for x in found)
        ),
        None,
    )
    if before is None:
        return None, "its input is not the output of a layer that can be quantized"
    layer = watch.layers[before]
    if layer.output_axis is None:
        return None, f"no quantizer knows {layer.kind}, the layer before it"
    if len(watch.outputs[before]) != 1:
        return None, f"the network uses {layer.name!r}, the layer before it, more than once"
    shared = [other for other in watch.layers.values() if other.module is not layer.module]
    if any(other.output_axis is not None and other.weight is layer.weight for other in shared):
        return None, f"{layer.name!r}, the layer before it, shares its weight"
    if watch.uses.get(id(given[0])) != 1:
        return None, f"the output of {layer.name!r}, the layer before it, is used elsewhere, too"
    if isinstance(layer.module, nn.Linear) and given[0].ndim != 2:
        return None, f"it does not normalise the output channels of {layer.name!r}"
    return layer, ""


def _folded(network: nn.Module, layer_name: str, norm_name: str) -> nn.Module:
    """A copy of the network with one normalisation in the layer before it."""
    network = copy.deepcopy(network)
    layer = find_layers(network)[layer_name]
    norm = cast("nn.BatchNorm2d", network.get_submodule(norm_name))
    mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    gain = (variance.double() + norm.eps).rsqrt()
    offset = torch.zeros_like(gain)
    if norm.affine:
        gain, offset = gain * norm.weight.double(), norm.bias.double()
    module = cast("nn.Conv2d", layer.module)
    bias = torch.zeros_like(gain) if module.bias is None else module.bias.double()
    with torch.no_grad():
        module.weight.copy_(module.weight.double() * over_channels(module, gain))
        offset = (gain * (bias - mean.double()) + offset).to(module.weight.dtype)
        module.bias = nn.Parameter(offset, requires_grad=module.weight.requires_grad)
    _remove(network, norm)
    return network


def _remove(network: nn.Module, norm: nn.Module) -> None:
    for _, parent in _modules(network):
        for name, child in list(parent.named_children()):
            if child is norm:
                setattr(parent, name, nn.Identity())


def _gives(network: nn.Module, example: Tensor, output: Tensor) -> bool:
    try:
        with torch.no_grad():
            found: Tensor = network(example)
    # A network may ask its normalisation for more than its output.
    except Exception:  # noqa: BLE001
        return False
    return float((found - output).abs().max()) <= CLOSE * float(output.abs().max())


def _modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    # PyTorch annotates this one generator in part.
    return cast("Iterator[tuple[str, nn.Module]]", network.named_modules())
