"""A hardware profile: what one chip's arithmetic is like, as a small JSON file.

::

    {"schema": 1, "name": "...", "tie_rule": "half_up", "power_of_two": false,
     "granularity": "channel", "multiplier_bits": 16, "bias_bits": 32,
     "accumulator_bits": 32, "overflow": "wrap"}

It says what a network may use; :func:`apply_profile` plans by it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast, get_args

from quantisp.errors import SettingError
from quantisp.quantization.activations.settings import (
    BIAS_BITS,
    TIE_RULES,
    ActivationSettings,
    TieRule,
)
from quantisp.quantization.integer.network import Accumulator, Overflow
from quantisp.quantization.plan import Plan
from quantisp.records import Granularity

__all__ = ["HardwareProfile", "apply_profile", "packaged_profiles", "read_profile"]

SCHEMA = 1
MULTIPLIERS = range(2, 17)
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)


@dataclass(frozen=True, kw_only=True)
class HardwareProfile:
    """One chip.

    Args:
        name: for people.
        tie_rule: ``half_up`` or ``half_even``.
        power_of_two: it shifts and does not multiply when it rescales.
        granularity: whether each output channel may have its own multiplier and shift.
        multiplier_bits: 2 to 16, unsigned.
        bias_bits: 8 to 48.
        accumulator_bits: 8 to 64.
        overflow: what becomes of a sum that does not fit: ``error``, ``wrap`` or ``clamp``.

    Raises:
        SettingError: a value that does not exist.
    """

    name: str
    tie_rule: TieRule
    power_of_two: bool
    granularity: Granularity
    multiplier_bits: int
    bias_bits: int
    accumulator_bits: int
    overflow: Overflow

    def __post_init__(self) -> None:
        for value, choices in ((self.tie_rule, TIE_RULES), (self.granularity, GRANULARITIES)):
            if value not in choices:
                raise SettingError(
                    f"expected one of {', '.join(choices)} in a profile, found {value!r}: correct "
                    "it"
                )
        for name, bits, there_are in (
            ("multiplier_bits", self.multiplier_bits, MULTIPLIERS),
            ("bias_bits", self.bias_bits, BIAS_BITS),
        ):
            if bits not in there_are:
                raise SettingError(
                    f"expected {name} from {there_are[0]} to {there_are[-1]} in a profile, found "
                    f"{bits}: correct it"
                )
        # Refuses widths and ways that do not exist.
        _ = self.accumulator

    @property
    def accumulator(self) -> Accumulator:
        """Of its layers."""
        return Accumulator(bits=self.accumulator_bits, overflow=self.overflow)

    def applied(self, settings: ActivationSettings) -> ActivationSettings:
        """The settings as the chip can do them."""
        return replace(
            settings,
            tie_rule=self.tie_rule,
            power_of_two=self.power_of_two,
            bias_bits=self.bias_bits,
            multiplier_bits=self.multiplier_bits,
        )


def read_profile(name_or_path: str | Path) -> HardwareProfile:
    """The profile in a file, or a packaged one by its name.

    Raises:
        SettingError: there is none, or it is not as it should be.
    """
    try:
        text = _text(str(name_or_path))
        document = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SettingError(
            f"expected a hardware profile (JSON) or one of {', '.join(packaged_profiles())}, found "
            f"{name_or_path} ({str(error)[:100]}): correct --profile"
        ) from error
    content = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    if type(content.get("schema")) is not int or content["schema"] != SCHEMA:
        raise SettingError(
            f"expected a hardware profile of schema {SCHEMA}, {name_or_path} has schema "
            f"{content.get('schema')!r}: correct it, or update quantisp"
        )
    kinds = {field.name: field.type for field in fields(HardwareProfile)}
    differing = sorted((content.keys() - {"schema"}) ^ kinds.keys())
    if differing:
        raise SettingError(
            f"expected {', '.join(kinds)} in a hardware profile, {differing[0]!r} of "
            f"{name_or_path} is missing or unknown: correct it"
        )
    for name, kind in kinds.items():
        wanted = {"int": int, "bool": bool}.get(str(kind), str)
        if type(content[name]) is not wanted:
            raise SettingError(
                f"expected {name} of {name_or_path} as {wanted.__name__}, found "
                f"{content[name]!r}: correct it"
            )
    return HardwareProfile(**{name: content[name] for name in kinds})


def packaged_profiles() -> tuple[str, ...]:
    """The names of the profiles that come with the package."""
    folder = resources.files("quantisp.quantization.integer") / "profiles"
    return tuple(sorted(Path(str(f)).stem for f in folder.iterdir() if f.name.endswith(".json")))


def apply_profile(plan: Plan, profile: HardwareProfile) -> Plan:
    """The plan as the chip can do it: scales, rounding and widths; not its codes' widths.

    A chip without a scale for each channel makes every layer's granularity ``tensor``.
    """
    default, layers = plan.default, dict(plan.layers)
    if profile.granularity == "tensor":
        default = replace(default, granularity="tensor")
        layers = {n: replace(entry, granularity="tensor") for n, entry in layers.items()}
    activations = profile.applied(plan.activations)
    return replace(plan, default=default, layers=layers, activations=activations)


def _text(name: str) -> str:
    if name in packaged_profiles():
        folder = resources.files("quantisp.quantization.integer") / "profiles"
        return (folder / f"{name}.json").read_text(encoding="utf-8")
    return Path(name).read_text(encoding="utf-8")
