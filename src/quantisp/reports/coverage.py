"""What a study quantized of the network, in plain words and as a table of text."""

from __future__ import annotations

from quantisp.records import LayerResult, StudyResult

__all__ = ["COVERAGE_HEADINGS", "coverage_lines", "coverage_rows"]

COVERAGE_HEADINGS = ("layer", "kind", "parameters", "weight bits")


def coverage_lines(result: StudyResult) -> list[str]:
    """One line for everything that stays in float; none if nothing does.

    Such as ``In float: 1 of 20 layers with parameters (0.4% of them): act (PReLU): …``.
    """
    left = [layer for layer in result.coverage if layer.in_float]
    if not left:
        return []
    counted = [layer for layer in result.coverage if layer.folded_into is None]
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
