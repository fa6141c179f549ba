"""What a study's options mean: settings, the input's width, and the pictures to calibrate with."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch

from quantisp.api_inputs import Material, Sources, listed
from quantisp.data import CalibrationCrops, calibration_crops, default_calibration, find_images
from quantisp.errors import ImageError, SettingError
from quantisp.evaluation import Execution, plan_of
from quantisp.quantization import ActivationSettings, Plan, needs_calibration
from quantisp.quantization.integer import Accumulator, HardwareProfile
from quantisp.records import Granularity, Setting

__all__ = [
    "calibration_for",
    "check_profile",
    "check_seed",
    "find_execution",
    "find_settings",
    "find_ways",
    "fitted_settings",
    "one_or_several",
    "ordered_activations",
    "whole_numbers",
    "width_of_input",
]


def check_profile(
    profile: HardwareProfile, granularities: Sequence[str], plans: Mapping[str, Plan] | None
) -> None:
    """Refuse what the hardware cannot do.

    Raises:
        SettingError: scales for each channel where it has none, or plans, which say it themselves.
    """
    if plans:
        raise SettingError(
            "expected plans without a hardware profile, for they say how activations are "
            "quantized themselves, found both: leave out one of the two"
        )
    if profile.granularity == "tensor" and "channel" in granularities:
        raise SettingError(
            f"expected one scale for each tensor, for {profile.name} has no others, found "
            "granularity channel: pass --granularity tensor"
        )


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        SettingError: it is negative, or wider than 31 bits.
    """
    if not 0 <= seed < 1 << 31:
        raise SettingError(f"expected a seed from 0 to 2^31 - 1, found {seed}: correct --seed")


def fitted_settings(
    settings: ActivationSettings, accumulator: Accumulator | None, plans: Mapping[str, Plan] | None
) -> ActivationSettings:
    """Settings for which all sums fit.

    Raises:
        SettingError: nothing says how wide sums may be, or a plan says something wider.
    """
    if accumulator is None:
        raise SettingError(
            "expected an accumulator's width for sums that fit, found none: pass --accumulator-bits"
        )
    for name, plan in (plans or {}).items():
        planned = plan.activations.accumulator_bits
        if plan.quantizes_activations and (planned is None or planned > accumulator.bits):
            raise SettingError(
                f"expected plans whose sums fit {accumulator.bits} bits, found {planned} in "
                f"{name}: set accumulator_bits in its activations"
            )
    return replace(settings, accumulator_bits=accumulator.bits)


EXECUTIONS = ("simulated", "integer")


def find_execution(
    name: str,
    accumulator: Accumulator | None,
    device: torch.device,
) -> Execution | None:
    """How activations in integers run; None is simulated.

    Raises:
        SettingError: no such way, an accumulator that nothing would look at, or another device
            than the CPU.
    """
    if name not in EXECUTIONS:
        raise SettingError(
            f"expected an execution of {' or '.join(EXECUTIONS)}, found {name!r}: choose one"
        )
    if name == "simulated":
        if accumulator is not None:
            raise SettingError(
                "expected execution in integers beside an accumulator's width, found a "
                "simulation, which has none: pass --execution integer"
            )
        return None
    found = Execution(accumulator=accumulator)
    found.check_device(device)
    return found


def width_of_input(asked: int | None, plans: Sequence[Plan]) -> int | None:
    """What every network's input is rounded to: as the plans say that give bits to activations.

    Raises:
        SettingError: they do not agree.
    """
    found = {plan.activations.input_bits for plan in plans if plan.quantizes_activations}
    widths = found if asked is None else {*found, asked}
    if len(widths) > 1:
        raise SettingError(
            f"expected one width of the input, found {', '.join(map(str, sorted(widths)))} bits: "
            "give plans and --input-bits the same"
        )
    return widths.pop() if widths else None


def find_ways(
    methods: str | Sequence[str], granularities: str | Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Each method with its own granularity, as in ``auto:channel``, or with each of the others."""
    ways: dict[tuple[str, str], None] = {}
    others = one_or_several(granularities)
    for text in one_or_several(methods):
        method, colon, own = text.partition(":")
        ways |= dict.fromkeys((method, each) for each in ([own] if colon else others))
    return tuple(ways)


def find_settings(
    weight_bits: int | Sequence[int],
    activation_bits: int | Sequence[int | None],
    ways: Sequence[tuple[str, str]],
) -> tuple[Setting, ...]:
    """Every way at every pair of widths, in the order of the rows.

    Raises:
        SettingError: none, or one that does not exist.
    """
    settings = tuple(
        Setting(
            method=method,
            granularity=cast("Granularity", granularity),
            weight_bits=bits,
            activation_bits=width,
        )
        for method, granularity in ways
        for bits in sorted(whole_numbers(weight_bits, "weight"))
        for width in ordered_activations(activation_bits)
    )
    if not settings:
        raise SettingError("expected at least one width, method and granularity, found none")
    # A plan refuses methods, granularities and widths that do not exist.
    for setting in settings:
        plan_of(setting)
    return settings


def ordered_activations(activation_bits: int | Sequence[int | None]) -> tuple[int | None, ...]:
    """Float, then the widest first: weights are rounded once for all of them."""
    given = [activation_bits] if isinstance(activation_bits, int) else activation_bits
    numbers = whole_numbers([bits for bits in given if bits is not None], "activation")
    return (*([None] if None in given else []), *sorted(numbers, reverse=True))


def one_or_several(names: str | Sequence[str]) -> Sequence[str]:
    """A name by itself is one, not its letters."""
    return [names] if isinstance(names, str) else names


def whole_numbers(widths: object, kind: str) -> set[int]:
    """The widths, of which one needs no list.

    Raises:
        SettingError: something else than whole numbers.
    """
    several = widths if isinstance(widths, Iterable) else [widths]
    try:
        return {operator.index(bits) for bits in cast("Iterable[int]", several)}
    except TypeError:
        raise SettingError(
            f"expected whole numbers of {kind} bits, found {widths!r}: pass a list of them"
        ) from None


def calibration_for(
    sources: Sources | None,
    methods: set[str],
    material: Material | None,
    *,
    needed: bool = False,
    seed: int = 0,
) -> CalibrationCrops | None:
    """Crops to calibrate with, if one of the methods needs some, or they are needed anyway.

    Args:
        sources: of pictures; None is two packaged ones.
        methods: that round.
        material: what is measured on; None is nothing.
        needed: whatever the methods are.
        seed: chooses the places of the crops.

    Raises:
        SettingError: pictures that no method would look at.
        ImageError: unusable pictures, or one that is also measured on.
    """
    if not needed and not any(needs_calibration(method) for method in methods):
        if sources is not None:
            raise SettingError(
                f"expected no calibration, for the methods ({', '.join(sorted(methods))}) do not "
                "look at it: leave it out"
            )
        return None
    if sources is None and material is not None and material.has_own_inputs:
        raise SettingError(
            "expected pictures to calibrate with that are like --inputs, found none: pass "
            "--calibration"
        )
    files = default_calibration() if sources is None else find_images(listed(sources))
    if material is None:
        crops = calibration_crops(files, seed=seed)
    else:
        crops = calibration_crops(files, seed=seed, size=material.crop_size())
    measured = {} if material is None else material.measured()
    for file, digest in zip(files, crops.shown_sha256, strict=True):
        if digest in measured:
            raise ImageError(
                f"expected other pictures to calibrate with than to measure on, {file.path} is "
                f"also measured on, as {measured[digest]}: take it out of one"
            )
    return crops
