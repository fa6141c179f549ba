"""``quantisp info``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from quantisp.cli.info_cost import check_cost_options, show_costs
from quantisp.cli.info_integers import describe_integers, integer_table, is_integer_network
from quantisp.cli.options import JsonOption, PatternOption, WeightsOption
from quantisp.cli.plan_options import PlanOption, SumBitsOption
from quantisp.cli.progress import console
from quantisp.errors import ModelError, SettingError

if TYPE_CHECKING:
    from quantisp.models import LoadedModel

__all__ = ["info_command"]


def info_command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A packaged name, a .safetensors or .pt2 file, module:factory, or the folder of "
            "an integer network."
        ),
    ] = None,
    weights: WeightsOption = None,
    pattern: PatternOption = None,
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="The cost sheet instead: each layer's multiplications, bit operations, bytes of "
            "weights and line buffers; memory traffic and energy of a frame.",
        ),
    ] = False,
    height: Annotated[
        int | None, typer.Option(help="Of a frame in px, beside --cost.", show_default="3000")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Of a frame in px, beside --cost.", show_default="4000")
    ] = None,
    weight_bits: Annotated[
        int | None,
        typer.Option(help="Of a float network, beside --cost.", show_default="float32"),
    ] = None,
    activation_bits: Annotated[
        int | None,
        typer.Option(help="Of a float network, beside --cost.", show_default="float32"),
    ] = None,
    sum_bits: SumBitsOption = None,
    plan: PlanOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a model's cost, receptive field, CFA and provenance; without MODEL, what there is.

    Example: quantisp info dephasenet-lite --cost --weight-bits 8 --activation-bits 8 --width 4000
    """
    check_cost_options(
        cost,
        model,
        {
            "--height": height,
            "--width": width,
            "--weight-bits": weight_bits,
            "--activation-bits": activation_bits,
            "--sum-bits": sum_bits,
            "--plan": plan,
        },
    )
    if cost and model is not None:
        if pattern is not None:
            raise SettingError("expected no --pattern beside --cost, found one: leave it out")
        show_costs(
            model,
            weights=weights,
            plan=plan,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            sum_bits=sum_bits,
            size=(height, width),
            as_json=as_json,
        )
        return
    facts = _facts(model, weights, pattern)
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    layers: list[dict[str, Any]] = facts.pop("layers", [])
    # What a plan says of each layer is in the table of layers.
    facts.pop("plan", None)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _plain(value))
    screen = console()
    screen.print(table)
    if layers:
        screen.print((integer_table if is_integer_network(model) else _layer_table)(layers))


def _facts(model: str | None, weights: Path | None, pattern: str | None) -> dict[str, Any]:
    if model is None:
        return _everything()
    if is_integer_network(model):
        if weights is not None or pattern is not None:
            raise SettingError(
                f"expected an integer network alone, found {model} and --weights or --pattern: "
                "leave them out"
            )
        return describe_integers(model)
    from quantisp.api import find_model

    return _describe(find_model(model, weights, pattern=pattern))


def _everything() -> dict[str, Any]:
    from quantisp.cfa import named_patterns
    from quantisp.models import classical_methods, packaged_models, presets
    from quantisp.quantization import method_names
    from quantisp.quantization.integer import packaged_profiles

    return {
        "packaged_models": list(packaged_models()),
        "methods_without_training": list(classical_methods()),
        "presets_to_train": list(presets()),
        "CFAs": {pattern.name: "/".join(pattern.tile) for pattern in named_patterns()},
        "rounding_methods": list(method_names()),
        "hardware_profiles": list(packaged_profiles()),
    }


def _describe(found: LoadedModel) -> dict[str, Any]:
    from quantisp.inference import PROBE_PX, find_interface, network_cost, receptive_field
    from quantisp.models import model_sha256
    from quantisp.quantization import QuantizedModel

    model, widths = found.model, {}
    if isinstance(model, QuantizedModel):
        model, widths = model.network, {n: c.weight_bits for n, c in model.coverage.items()}
    pattern = found.pattern
    fixed = (None,) * 4 if found.input_size is None else found.input_size.fixed_sizes
    size = (fixed[2] or PROBE_PX, fixed[3] or PROBE_PX)
    interface = find_interface(model, pattern, channels=fixed[1] or 3, size=size)
    try:
        cost = network_cost(model, interface, size)
    except NotImplementedError as error:
        raise ModelError(
            f"expected a model that runs in PyTorch, where operations are counted, {found.name} is "
            "another package's: see docs/demosaic.md"
        ) from error
    field = receptive_field(model, interface)
    return {
        "model": found.name,
        "sha256": model_sha256(found.model),
        "parameters": cost.parameters,
        "macs_per_px": cost.macs_per_px,
        "receptive_field_px": None if field is None else [field.height_px, field.width_px],
        "input": "a mosaic" if interface.channels == 1 else "RGB",
        "output_factor": interface.factor,
        "CFA": None
        if pattern is None
        else {
            str(pattern): "/".join(pattern.tile),
            **{c: list(pattern.response(c)) for c in pattern.letters},
        },
        "provenance": None if found.provenance is None else asdict(found.provenance),
        **(_describe_codes(found) if widths else {}),
        "layers": [
            {**asdict(layer), **({"weight_bits": widths.get(layer.name)} if widths else {})}
            for layer in cost.layers
        ],
    }


def _describe_codes(found: LoadedModel) -> dict[str, Any]:
    from quantisp.quantization import QuantizedModel

    model = found.model
    if not isinstance(model, QuantizedModel):
        return {}
    bits = sum(codes.numel() * model.formats[name].bits for name, codes in model.codes.items())
    return {
        "float_sha256": found.float_sha256,
        "weights_in_codes": sum(codes.numel() for codes in model.codes.values()),
        "bytes_of_codes": bits // 8,
        "decisions": list(model.decisions),
        "plan": json.loads(model.plan.to_json()),
    }


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(entry) for entry in value) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _layer_table(layers: list[dict[str, Any]]) -> Table:
    table = Table(title="Layers")
    table.add_column("layer")
    table.add_column("kind")
    table.add_column("parameters", justify="right")
    table.add_column("MAC/px", justify="right")
    quantized = "weight_bits" in layers[0]
    if quantized:
        table.add_column("weight bits", justify="right")
    for layer in layers:
        cells = [layer["name"], layer["kind"], f"{layer['parameters']:,}"]
        cells.append(f"{layer['macs_per_px']:,.0f}")
        table.add_row(*cells, *([str(layer["weight_bits"] or "float")] if quantized else []))
    return table
