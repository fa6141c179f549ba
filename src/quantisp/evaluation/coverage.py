"""What a study quantizes of a network, layer by layer, and why not the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import cast

from torch import nn

from quantisp.errors import PlanError
from quantisp.quantization import (
    BATCH_NORMS,
    BUFFER_IN_FLOAT,
    BUFFER_KIND,
    FoldedNetwork,
    Plan,
    find_layers,
    names_like,
    weight_buffers,
)
from quantisp.records import LayerResult

__all__ = ["ROOT", "coverage", "skipped_layers"]

# Stands for the network itself, whose name is empty.
ROOT = "."


def skipped_layers(network: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers to leave in float: names, or globs like ``head.*``; ``.`` is the network itself.

    Raises:
        PlanError: a pattern matches no layer, none is left, or a layer that no quantizer knows is
            not among them.
    """
    layers = find_layers(network)
    skipped: set[str] = set()
    for pattern in patterns:
        found = {name for name in layers if fnmatchcase(name or ROOT, pattern)}
        if not found:
            raise PlanError(
                f"expected a layer of the network in --skip-layers, {pattern!r} matches none: "
                f"choose among {names_like(pattern, [name or ROOT for name in layers])}"
            )
        skipped |= found
    unknown = [name for name, layer in layers.items() if layer.output_axis is None]
    missed = [name or ROOT for name in unknown if name not in skipped]
    if missed:
        kinds = sorted({layers[name].kind for name in unknown})
        raise PlanError(
            f"expected weights in layers that can be quantized, found {', '.join(missed)} "
            f"({', '.join(kinds)}), which no quantizer knows: leave them in float with "
            f"--skip-layers {','.join(sorted(skip or ROOT for skip in {*skipped, *unknown}))}"
        )
    if layers and len(skipped) == len(layers):
        raise PlanError(
            "expected a layer to quantize, --skip-layers leaves out all of them: leave it out"
        )
    return tuple(name for name in layers if name in skipped)


def coverage(folding: FoldedNetwork, plans: Sequence[Plan]) -> tuple[LayerResult, ...]:
    """Every module with parameters: the widths that the plans give it, or why it is in float.

    Buffers that may be weights come last.

    Args:
        folding: the network, and what became of its batch normalisations.
        plans: of the study.
    """
    layers = find_layers(folding.network)
    found: list[LayerResult] = []
    # PyTorch annotates this one generator in part.
    modules = cast("Iterator[tuple[str, nn.Module]]", folding.network.named_modules())
    for name, module in modules:
        count = sum(value.numel() for value in module.parameters(recurse=False))
        kind = type(module).__name__
        if name in folding.folded:
            into = folding.folded[name]
            found.append(LayerResult(name=name, kind="BatchNorm", weights=0, folded_into=into))
        elif name in layers:
            planned = {plan.for_layer(name).weight_bits for plan in plans}
            bits = tuple(sorted(width for width in planned if width is not None))
            reason = "" if bits else "left in float, as asked for"
            if layers[name].output_axis is None:
                reason += f"; no quantizer knows {kind}"
            found.append(
                LayerResult(
                    name=name,
                    kind=kind,
                    weights=layers[name].numel,
                    weight_bits=bits,
                    reason=reason,
                )
            )
        elif count or isinstance(module, BATCH_NORMS):
            reason = folding.left.get(name, "its parameters have one dimension")
            found.append(LayerResult(name=name, kind=kind, weights=count, reason=reason))
    for name, buffer in weight_buffers(folding.network).items():
        count = buffer.numel()
        found.append(
            LayerResult(name=name, kind=BUFFER_KIND, weights=count, reason=BUFFER_IN_FLOAT)
        )
    return tuple(found)
