"""Which layer gets which format: uniform and mixed precision are both just plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, cast, get_args

from torch import nn

from quantisp.errors import PlanError, SettingError
from quantisp.quantization.activations.settings import (
    ActivationSettings,
    Observer,
    check_activation_bits,
)
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.layers import LAYER_KINDS, Layer, find_layers, names_like
from quantisp.quantization.methods import check_method
from quantisp.quantization.rounding import ROUNDINGS, Rounding
from quantisp.records import Granularity

__all__ = ["SCHEMA", "LayerPlan", "Plan"]

SCHEMA = 1
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """How one layer is quantized.

    Args:
        weight_bits: 2 to 16, or None for float.
        activation_bits: 4 to 16, of what the layer gives, or None for float. In ``Plan.default``
            also of sums, products and tables, which belong to no layer.
        method: a name of ``method_names``.
        granularity: one scale for the ``tensor``, or one for each output ``channel``.
        narrow_range: codes from -qmax, not from -qmax - 1.
        rounding: what becomes of a weight in the middle between two codes.

    Raises:
        SettingError: a value that does not exist.
    """

    weight_bits: int | None
    activation_bits: int | None = None
    method: str = "rtn"
    granularity: Granularity = "tensor"
    narrow_range: bool = True
    rounding: Rounding = "half_even"

    def __post_init__(self) -> None:
        if self.weight_bits is not None:
            IntFormat(bits=self.weight_bits)
        if self.activation_bits is not None:
            check_activation_bits(self.activation_bits)
        check_method(self.method)
        for value, choices in ((self.granularity, GRANULARITIES), (self.rounding, ROUNDINGS)):
            if value not in choices:
                raise SettingError(
                    f"expected one of {', '.join(choices)}, found {value!r}: choose one of them"
                )

    @property
    def weight_format(self) -> IntFormat | None:
        """The integers that the weight becomes, or None for float."""
        if self.weight_bits is None:
            return None
        return IntFormat(bits=self.weight_bits, narrow_range=self.narrow_range)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a network is quantized; hashable, and equal plans have equal JSON.

    >>> plan = Plan.uniform(weight_bits=6)
    >>> plan = plan.with_layer("tail", LayerPlan(weight_bits=10, granularity="channel"))
    >>> Plan.from_json(plan.to_json()) == plan
    True

    Args:
        default: for every layer that is not named.
        layers: for layers by name, as in ``named_modules``.
        activations: how activations are quantized, where they are.
    """

    default: LayerPlan
    layers: Mapping[str, LayerPlan] = field(default_factory=dict[str, LayerPlan])
    activations: ActivationSettings = field(default_factory=ActivationSettings)

    def __post_init__(self) -> None:
        # A copy of our own, so that the caller's dictionary cannot change a frozen plan.
        object.__setattr__(self, "layers", dict(sorted(self.layers.items())))

    def __hash__(self) -> int:
        return hash((self.default, self.activations, *self.layers.items()))

    @classmethod
    def uniform(
        cls,
        *,
        weight_bits: int | None = 8,
        activation_bits: int | None = None,
        method: str = "rtn",
        granularity: Granularity = "tensor",
        observer: Observer = "mse",
        input_bits: int = 10,
        sum_bits: int | None = None,
    ) -> Plan:
        """The same for every layer.

        The arguments are those of :class:`LayerPlan`, but for the last three, which are those of
        ``ActivationSettings``.
        """
        default = LayerPlan(
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            method=method,
            granularity=granularity,
        )
        settings = ActivationSettings(observer=observer, input_bits=input_bits, sum_bits=sum_bits)
        return cls(default=default, activations=settings)

    def with_layer(self, name: str, layer_plan: LayerPlan) -> Plan:
        """The same plan, but for one layer."""
        return replace(self, layers={**self.layers, name: layer_plan})

    def for_layer(self, name: str) -> LayerPlan:
        """What the plan says of a layer."""
        return self.layers.get(name, self.default)

    @property
    def quantizes_activations(self) -> bool:
        """Whether it gives bits to any activation."""
        entries = (self.default, *self.layers.values())
        return any(entry.activation_bits is not None for entry in entries)

    def without_activations(self) -> Plan:
        """The same for weights, with activations in float."""
        default = replace(self.default, activation_bits=None)
        layers = {n: replace(entry, activation_bits=None) for n, entry in self.layers.items()}
        # Entries that differed in nothing else are none.
        return Plan(default=default, layers={n: e for n, e in layers.items() if e != default})

    def without_weights(self) -> Plan:
        """The same for activations, with weights in float."""
        default = replace(self.default, weight_bits=None)
        layers = {n: replace(entry, weight_bits=None) for n, entry in self.layers.items()}
        return replace(self, default=default, layers=layers)

    def resolve(self, model: nn.Module) -> dict[str, LayerPlan]:
        """What becomes of each layer of a network that owns weights.

        Raises:
            PlanError: the plan names a layer that the network does not have, asks for bits where
                no quantizer can give them, or treats two layers with one weight differently.
        """
        layers = find_layers(model)
        for name in self.layers:
            if name not in layers:
                raise PlanError(
                    f"expected layers of the network, the plan names {name!r}: "
                    f"choose among {names_like(name, list(layers))}"
                )
        if self.default.weight_bits is not None and not layers:
            raise PlanError(
                f"expected a network with weights in {LAYER_KINDS}, found none: "
                "plan it with weight_bits None"
            )
        resolved = {name: self.for_layer(name) for name in layers}
        for name, layer in layers.items():
            _check_layer(layer, resolved[name])
        _check_shared(layers, resolved)
        return resolved

    def to_json(self) -> str:
        """A document with sorted keys, ending in a newline; equal plans give equal bytes."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read ``to_json``, or a plan written by hand.

        What ``default`` leaves out, but for ``weight_bits``, is as in :class:`LayerPlan`; what an
        entry of ``layers`` leaves out is as in ``default``.

        Raises:
            PlanError: not JSON, of another schema, an unknown or repeated key, or a wrong value.
        """
        try:
            document = json.loads(text, object_pairs_hook=_without_repeats)
        except json.JSONDecodeError as error:
            raise PlanError(
                f"expected a plan as JSON, found {error}: correct it, or write one with to_json"
            ) from error
        content = _object(
            "the plan", document, allowed={"schema", "default", "layers", "activations"}
        )
        if type(content.get("schema")) is not int or content["schema"] != SCHEMA:
            found = repr(content["schema"]) if "schema" in content else "none"
            raise PlanError(
                f'expected a plan of schema {SCHEMA}, found {found}: write "schema": {SCHEMA}'
            )
        default = _read_layer("default", content.get("default"), inherited={})
        entries = _object("layers", content.get("layers", {}), allowed=None)
        layers = {
            name: _read_layer(f"layer {name!r}", entry, inherited=asdict(default))
            for name, entry in entries.items()
        }
        activations = _read_activations(content.get("activations", {}))
        return cls(default=default, layers=layers, activations=activations)


def _check_layer(layer: Layer, plan: LayerPlan) -> None:
    if plan.weight_bits is None:
        return
    if layer.output_axis is None:
        raise PlanError(
            f"expected weights in {LAYER_KINDS}, layer {layer.name!r} is a {layer.kind} with "
            f"{', '.join(layer.weights)}, which no quantizer knows: "
            "plan that layer with weight_bits None"
        )


def _check_shared(layers: Mapping[str, Layer], resolved: Mapping[str, LayerPlan]) -> None:
    """Layers that share a weight must get the same codes from it."""
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        for weight in layer.weights:
            first = owners.setdefault(id(layer.module.get_parameter(weight)), name)
            if _treatment(layers[first], resolved[first]) != _treatment(layer, resolved[name]):
                raise PlanError(
                    f"expected one treatment of one weight, layers {first!r} and {name!r} share "
                    "theirs: plan both alike, along the same axis"
                )


def _treatment(layer: Layer, plan: LayerPlan) -> tuple[LayerPlan, int | None, int] | None:
    if plan.weight_bits is None:
        return None
    axis = layer.axis(plan.granularity)
    return plan, axis, 1 if axis is None else layer.scale_groups


_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "weight_bits": ("a whole number or null", (int, type(None))),
    "activation_bits": ("a whole number or null", (int, type(None))),
    "method": ("a text", (str,)),
    "granularity": ("a text", (str,)),
    "narrow_range": ("true or false", (bool,)),
    "rounding": ("a text", (str,)),
}
_ACTIVATION_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "observer": ("a text", (str,)),
    "percentile": ("a number", (int, float)),
    "input_bits": ("a whole number", (int,)),
    "output_bits": ("a whole number or null", (int, type(None))),
    "sum_bits": ("a whole number or null", (int, type(None))),
    "bias_bits": ("a whole number", (int,)),
    "tie_rule": ("a text", (str,)),
    "bias_correction": ("true or false", (bool,)),
    "power_of_two": ("true or false", (bool,)),
    "multiplier_bits": ("a whole number", (int,)),
    "accumulator_bits": ("a whole number or null", (int, type(None))),
}


def _read_activations(value: object) -> ActivationSettings:
    known = {known.name for known in fields(ActivationSettings)}
    entry = _object("activations", value, allowed=known)
    _check_kinds("activations", entry, _ACTIVATION_KINDS)
    try:
        return ActivationSettings(**entry)
    except SettingError as error:
        raise PlanError(f"in activations of the plan: {error}") from error


def _check_kinds(
    where: str, entry: Mapping[str, object], kinds: Mapping[str, tuple[str, tuple[type, ...]]]
) -> None:
    for name, setting in entry.items():
        expected, types = kinds[name]
        # The exact type: JSON's true is no number here, though Python's is.
        if type(setting) not in types:
            raise PlanError(
                f"expected {expected} as {name} of {where}, found {json.dumps(setting)}: correct it"
            )


def _read_layer(where: str, value: object, inherited: Mapping[str, Any]) -> LayerPlan:
    if value is None:
        raise PlanError(f"expected {where} in the plan, found none: write a JSON object as {where}")
    entry = _object(where, value, allowed={known.name for known in fields(LayerPlan)})
    _check_kinds(where, entry, _KINDS)
    settings = {**inherited, **entry}
    if "weight_bits" not in settings:
        raise PlanError(
            f"expected weight_bits in {where}, found none: write a whole number, or null for float"
        )
    try:
        return LayerPlan(**settings)
    except SettingError as error:
        raise PlanError(f"in {where} of the plan: {error}") from error


def _object(where: str, value: object, allowed: set[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PlanError(f"expected a JSON object as {where}, found {json.dumps(value)}: correct it")
    content = cast("dict[str, Any]", value)
    unknown = [] if allowed is None else sorted(set(content) - allowed)
    if allowed and unknown:
        raise PlanError(
            f"expected {', '.join(sorted(allowed))} in {where}, found {unknown[0]!r}: "
            "correct or remove it"
        )
    return content


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"expected each key once, found {repeated!r} again: remove one of the two")
    return content
