"""What ``quantisp info`` shows of an integer network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

__all__ = ["describe_integers", "integer_table", "is_integer_network"]


def is_integer_network(model: str | None) -> bool:
    """Whether a name is a folder of an integer network, or the document in it."""
    if model is None:
        return False
    path = Path(model)
    return path.is_dir() or path.suffix == ".json"


def describe_integers(model: str) -> dict[str, Any]:
    """Widths, accumulators, and how each layer's sums are computed here."""
    from quantisp.quantization.integer import IntegerExecutor, load_integer_network
    from quantisp.quantization.integer.int8 import int8_is_exact

    network = load_integer_network(Path(model))
    executor = IntegerExecutor(network)
    accumulator = network.accumulator
    names = network.graph
    layers: list[dict[str, Any]] = []
    for node, own, weights, given in network.layers():
        worst, product = executor.worst[node.name], executor.products[node.name]
        fits = accumulator is None or worst.bits <= accumulator.bits
        layers.append(
            {
                "node": node.name,
                "layer": node.layer,
                "weight_bits": weights.bits,
                "input_bits": given.bits,
                "output_bits": own.codes.bits,
                "products": worst.products,
                "worst_accumulator_bits": worst.bits,
                "fits": fits,
                "kernel": f"{product.parts} x {product.kind}"
                + (", rescaled inside" if node.name in executor.fused else ""),
            }
        )
    origin = {k: v for k, v in network.origin.items() if k not in ("plan", "cfa")}
    return {
        "integer_network": model,
        "nodes": len(names.nodes),
        "input_bits": network.integers[names.nodes[0].name].codes.bits,
        "output_bits": network.integers[names.output].codes.bits,
        "tie_rule": network.tie_rule,
        "multipliers": "powers of two" if network.power_of_two else "16 bits and a shift",
        "accumulator": "as wide as needed"
        if accumulator is None
        else f"{accumulator.bits} bits, {accumulator.overflow} beyond",
        "widest_sum_bits": max((layer["worst_accumulator_bits"] for layer in layers), default=0),
        "layers_that_may_overflow": [layer["layer"] for layer in layers if not layer["fits"]],
        "bytes_are_exact_here": int8_is_exact(),
        "origin": origin,
        "layers": layers,
    }


def integer_table(layers: list[dict[str, Any]]) -> Table:
    """One row for each layer."""
    table = Table(title="Layers")
    columns = ("layer", "W", "in", "out", "products", "worst sum", "fits", "kernel")
    for name in columns:
        table.add_column(name, justify="left" if name in ("layer", "fits", "kernel") else "right")
    for layer in layers:
        table.add_row(
            str(layer["layer"]),
            str(layer["weight_bits"]),
            str(layer["input_bits"]),
            str(layer["output_bits"]),
            f"{layer['products']:,}",
            f"{layer['worst_accumulator_bits']} bits",
            "yes" if layer["fits"] else "no",
            layer["kernel"],
        )
    return table
