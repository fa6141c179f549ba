"""What a study quantized of the network, in plain words and as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from quantisp.records import LayerResult, StudyResult

__all__ = ["COVERAGE_HEADINGS", "coverage_lines", "coverage_rows"]

COVERAGE_HEADINGS = ("layer", "kind", "parameters", "weight bits")


def coverage_lines(result: StudyResult) -> list[str]:
    """A line for the layers that stay in float, and one for buffers; none where there are none.

    Such as ``In float: 1 of 20 layers with parameters (0.4% of them): act (PReLU): …``, and ``In
    float, too: blur.kernel (25 numbers): a buffer, …``.
    """
    layers = [layer for layer in result.coverage if not layer.is_buffer]
    return [*_layer_lines(layers), *_buffer_lines(result)]


def _layer_lines(layers: Sequence[LayerResult]) -> list[str]:
    left = [layer for layer in layers if layer.in_float]
    if not left:
        return []
    counted = [layer for layer in layers if layer.folded_into is None]
    total = sum(layer.weights for layer in counted)
    share = sum(layer.weights for layer in left) / total if total else 0.0
    reasons: dict[tuple[str, str], list[str]] = {}
    for layer in left:
        reasons.setdefault((layer.kind, layer.reason), []).append(layer.name or ".")
    named = "; ".join(
        f"{', '.join(names)} ({kind}): {reason}" for (kind, reason), names in reasons.items()
    )
    return [
        f"In float: {len(left)} of {len(counted)} layers with parameters ({share:.2%} of them): "
        f"{named}"
    ]


def _buffer_lines(result: StudyResult) -> list[str]:
    buffers = [layer for layer in result.coverage if layer.is_buffer]
    if not buffers:
        return []
    named = ", ".join(f"{buffer.name} ({buffer.weights:,} numbers)" for buffer in buffers)
    return [f"In float, too: {named}: {buffers[0].reason}"]


def coverage_rows(result: StudyResult) -> list[tuple[str, str, str, str]]:
    """A row for each layer, under ``COVERAGE_HEADINGS``."""
    return [
        (layer.name or ".", layer.kind, f"{layer.weights:,}", _widths(layer))
        for layer in result.coverage
    ]


def _widths(layer: LayerResult) -> str:
    if layer.folded_into is not None:
        return f"folded into {layer.folded_into}"
    if layer.in_float:
        return f"float: {layer.reason}"
    first, last = layer.weight_bits[0], layer.weight_bits[-1]
    whole = layer.weight_bits == tuple(range(first, last + 1)) and first < last
    return f"{first} to {last}" if whole else ", ".join(map(str, layer.weight_bits))
