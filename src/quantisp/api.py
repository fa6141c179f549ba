"""The public functions, composed from the rooms."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from quantisp.api_files import holds_quantized, load_quantized
from quantisp.api_inputs import Material, Sources, example_input, find_material
from quantisp.api_settings import (
    calibration_for,
    check_profile,
    find_execution,
    find_settings,
    find_ways,
    width_of_input,
)
from quantisp.cfa import CFAPattern, parse_pattern
from quantisp.errors import ModelError, SettingError
from quantisp.evaluation import (
    StudyOutcome,
    StudyProgress,
    StudyRequest,
    coverage,
    evaluate_pictures,
    mixed_settings,
    parse_place,
    plan_of,
    run_study,
    skipped_layers,
)
from quantisp.inference import check_network, find_device
from quantisp.models import (
    LoadedModel,
    check_pattern,
    classical_methods,
    load_classical,
    load_model_file,
    load_own_model,
    load_program_file,
    model_sha256,
    own_pattern,
    packaged_models,
)
from quantisp.quantization import (
    ActivationSettings,
    Plan,
    QuantizedModel,
    check_budget,
    count_macs,
    fold_batch_norms,
    network_work,
    quantize,
)
from quantisp.quantization.integer import Accumulator, HardwareProfile
from quantisp.records import EvaluationResult, StudyResult

if TYPE_CHECKING:
    from quantisp.quantization import Observer

__all__ = ["evaluate", "find_model", "load_model", "study", "study_with_crops"]

log = logging.getLogger(__name__)

DEFAULT_MODEL = "dephasenet-lite"
DEFAULT_BITS = tuple(range(4, 17))
DEFAULT_INPUT_BITS = 10

Model = str | Path | nn.Module


def load_model(
    name_or_path: str | Path,
    weights: str | Path | None = None,
    *,
    pattern: str | CFAPattern | None = None,
) -> nn.Module:
    """A network: of ours, ``forward`` maps a mosaic (n, 1, h, w) in [0, 1] to RGB (n, 3, h, w).

    Args:
        name_or_path: a packaged name, a ``.safetensors`` file that quantisp wrote, a method
            without training such as ``bilinear``, or, for a network of your own,
            ``package.module:factory`` or a ``torch.export`` program (.pt2).
        weights: for a network of your own, its state dict as a safetensors file, or the file of
            its quantized form.
        pattern: the CFA of a method without training, such as ``bayer`` or ``WRGB/...``; any
            other model is refused if it is for another CFA.

    Returns:
        The network in evaluation mode, with its CFA as ``.pattern`` if it restores mosaics. Its
        output is not clipped. From the file of a quantized network, a
        :class:`quantisp.QuantizedModel`.

    Raises:
        ModelError: no such model, or it cannot be used.
    """
    return find_model(name_or_path, weights, pattern=pattern).model


def find_model(
    model: Model, weights: str | Path | None = None, *, pattern: str | CFAPattern | None = None
) -> LoadedModel:
    """As :func:`load_model`, with the name, the CFA and the provenance beside the network.

    A network that restores mosaics has its CFA as ``.pattern``.
    """
    cfa = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if isinstance(model, str) and model in classical_methods():
        if weights is not None:
            raise ModelError(f"expected no weights beside {model}, found {weights}: leave them out")
        return load_classical(model, cfa)
    found = _find_network(model, weights)
    if cfa is not None:
        check_pattern(found, cfa)
    return found


def _find_network(model: Model, weights: str | Path | None) -> LoadedModel:
    if isinstance(model, nn.Module):
        if weights is not None:
            raise ModelError(
                f"expected a network with its weights in it, found {type(model).__name__} and "
                f"weights {weights}: load them before"
            )
        pattern = own_pattern(model)
        return LoadedModel(name=type(model).__name__, model=model, pattern=pattern, provenance=None)
    is_file = Path(model).suffix in (".safetensors", ".pt2")
    if weights is not None and (is_file or str(model) in packaged_models()):
        raise ModelError(
            f"expected package.module:factory beside --weights, found {model}, which has its own: "
            "leave out one of the two"
        )
    if weights is not None and holds_quantized(Path(weights)):
        return load_quantized(Path(weights), str(model))
    if is_file and holds_quantized(Path(model)):
        return load_quantized(Path(model))
    if weights is not None or (":" in str(model) and not is_file):
        return load_own_model(str(model), None if weights is None else Path(weights))
    if Path(model).suffix == ".pt2":
        return load_program_file(model)
    return load_model_file(model)


def evaluate(
    model: Model = DEFAULT_MODEL,
    images: Sources | None = None,
    *,
    weights: str | Path | None = None,
    pattern: str | CFAPattern | None = None,
    degradation: str | None = None,
    inputs: str | Path | None = None,
    targets: str | Path | None = None,
    plan: Plan | None = None,
    calibration: Sources | None = None,
    border_px: int = 10,
    device: str = "auto",
    on_read: Callable[[int, int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """PSNR and SSIM of each picture, degraded and restored, and the means.

    Args:
        model, weights, pattern: as for :func:`load_model`, or a network.
        images: files, folders, globs, or the word ``sample``.
        degradation: as for :func:`study`.
        inputs, targets: as for :func:`study`.
        plan: quantizes the network first; None is float.
        calibration: pictures for methods of the plan that need some; None is two packaged ones.
        border_px: left out at each side for one of the figures.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        on_read: called with the number of pictures read, and of all.
        on_progress: called with the number of pictures restored, and of all.

    Raises:
        InputError: an unusable model, picture or setting.
    """
    found = find_model(model, weights, pattern=pattern)
    place = find_device(device)
    material = find_material(
        found, images, degradation=degradation, pairs=(inputs, targets), on_read=on_read
    )
    network = found.model
    _check(network, place, material)
    if plan is not None and isinstance(network, QuantizedModel):
        raise ModelError(
            f"expected a float network beside a plan, {found.name} is quantized already: "
            "leave out the plan, or give the network that it was made from"
        )
    if plan is not None:
        folding = fold_batch_norms(network, example_input(material))
        network = folding.network
        for name, reason in folding.left.items():
            log.info("in float: %s, for %s", name, reason)
        planned = plan.resolve(network).values()
        methods = {entry.method for entry in planned if entry.weight_bits is not None}
        crops = calibration_for(calibration, methods, material, needed=plan.quantizes_activations)
        network = quantize(network, plan, None if crops is None else material.degraded(crops))
    elif calibration is not None:
        raise SettingError("expected a plan beside calibration pictures, found none: pass --plan")
    return evaluate_pictures(
        name=found.name,
        model=network,
        model_sha256=model_sha256(found.model),
        degradation=material.degradation,
        pictures=material.pictures,
        device=place,
        border_px=border_px,
        on_progress=on_progress,
    )


def study(
    model: Model = DEFAULT_MODEL,
    images: Sources | None = None,
    *,
    weights: str | Path | None = None,
    degradation: str | None = None,
    inputs: str | Path | None = None,
    targets: str | Path | None = None,
    weight_bits: Sequence[int] = DEFAULT_BITS,
    activation_bits: Sequence[int | None] = (None,),
    methods: Sequence[str] = ("rtn",),
    granularities: Sequence[str] = ("tensor", "channel"),
    budgets: Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    weight_formats: Sequence[str] = (),
    calibration: Sources | None = None,
    skip_layers: Sequence[str] = (),
    observer: str = "mse",
    input_bits: int | None = None,
    sum_bits: int | None = None,
    within_db: float = 0.05,
    out: str | Path | None = None,
    device: str = "auto",
    execution: str = "simulated",
    accumulator: Accumulator | None = None,
    profile: HardwareProfile | None = None,
) -> StudyResult:
    """How much quality each number of weight bits costs.

    For example ``study(weight_bits=[6, 8]).rows[0].drop_db``.

    Args:
        model, weights: as for :func:`load_model`, or a network.
        images: files, folders, globs, or the word ``sample``, which None stands for.
        degradation: what the network undoes: ``mosaic`` (the network's own CFA; the default where
            it names one), ``mosaic:CFA``, ``noise:SIGMA`` in 8-bit steps, ``downscale:FACTOR``.
        inputs, targets: instead of ``images``, two folders of pictures, matched by name: what the
            network gets, and what it should give.
        weight_bits: widths, 2 to 16.
        activation_bits: widths, 4 to 16, or None for float.
        methods: of rounding, such as ``rtn``, or ``auto:channel`` for one granularity alone.
        calibration: pictures for methods that need some, none of them studied; None is two
            packaged ones.
        skip_layers: names or globs of layers that stay in float; ``.`` is the network itself.
        granularities: ``tensor``, ``channel`` or both, for methods that do not name their own.
        budgets: such as ``mean-bits=5``, ``kilobytes=1000`` or ``bops=12.5%``: rows with the widths
            of least error within them, for each method and granularity.
        plans: more rows, by name.
        weight_formats: such as ``fp8-e4m3``: rows to compare with.
        observer: how ranges of activations are found: ``mse``, ``minmax`` or ``percentile``.
        input_bits: 4 to 16, of every network's input, the float one's too; None is 10 where
            activations have bits, and an input as it is where they have none.
        sum_bits: 4 to 16, of activations that are added to others; None is as wide as they are.
        within_db: the drop that the recommendation allows.
        out: keeps ``study.json``, ``study.csv`` and every finished job there, so that a killed
            study goes on; None keeps nothing.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        execution: of settings with bits for activations: ``simulated`` in float32, or ``integer``,
            to the very numbers that hardware would give.
        accumulator: of ``integer`` execution; None is the profile's, else as wide as sums have to
            be.
        profile: of the hardware: tie rule, multipliers, biases, accumulators.

    Raises:
        InputError: an unusable model, picture, setting or folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return study_with_crops(
            model,
            images,
            weights=weights,
            degradation=degradation,
            inputs=inputs,
            targets=targets,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
            methods=methods,
            granularities=granularities,
            budgets=budgets,
            plans=plans,
            weight_formats=weight_formats,
            calibration=calibration,
            skip_layers=skip_layers,
            observer=observer,
            input_bits=input_bits,
            sum_bits=sum_bits,
            within_db=within_db,
            out=Path(scratch) / "study" if out is None else Path(out),
            device=device,
            execution=execution,
            accumulator=accumulator,
            profile=profile,
        ).result


def study_with_crops(
    model: Model,
    images: Sources | None = None,
    *,
    out: Path,
    weights: str | Path | None = None,
    degradation: str | None = None,
    inputs: str | Path | None = None,
    targets: str | Path | None = None,
    weight_bits: Sequence[int] = DEFAULT_BITS,
    activation_bits: Sequence[int | None] = (None,),
    methods: Sequence[str] = ("rtn",),
    granularities: Sequence[str] = ("tensor", "channel"),
    budgets: Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    weight_formats: Sequence[str] = (),
    calibration: Sources | None = None,
    skip_layers: Sequence[str] = (),
    observer: str = "mse",
    input_bits: int | None = None,
    sum_bits: int | None = None,
    within_db: float = 0.05,
    crops: Sequence[str] = (),
    device: str = "auto",
    execution: str = "simulated",
    accumulator: Accumulator | None = None,
    profile: HardwareProfile | None = None,
    on_read: Callable[[int, int], None] | None = None,
    on_progress: Callable[[StudyProgress], None] | None = None,
) -> StudyOutcome:
    """As :func:`study`, and the same places of some pictures at several widths.

    Args:
        crops: ``NAME`` or ``NAME:TOP,LEFT`` in px; empty is the places where bits hurt most.
        on_read: called with the number of pictures read, and of all.
        on_progress: called after each job.
    """
    if not 0.0 <= within_db < math.inf:
        raise SettingError(f"expected a drop of 0 dB or more, found {within_db}: give --within")
    found = find_model(model, weights)
    if isinstance(found.model, QuantizedModel):
        raise ModelError(
            f"expected a float network to study, {found.name} is quantized already: study the "
            "network that it was made from, and measure this one with `quantisp evaluate`"
        )
    place = find_device(device)
    ways = find_ways(methods, granularities)
    settings = find_settings(weight_bits, activation_bits, ways)
    activations = ActivationSettings(
        observer=cast("Observer", observer),
        input_bits=DEFAULT_INPUT_BITS if input_bits is None else input_bits,
        sum_bits=sum_bits,
    )
    if sum_bits is not None and all(bits is None for bits in activation_bits):
        raise SettingError(
            "expected activation bits beside a width of sums, found only float: give "
            "--activation-bits, or leave out --sum-bits"
        )
    if profile is not None:
        check_profile(profile, [granularity for _, granularity in ways], plans)
        activations = profile.applied(activations)
        if execution == "integer":
            accumulator = accumulator or profile.accumulator
    runs = find_execution(execution, accumulator, place)
    material = find_material(
        found, images, degradation=degradation, pairs=(inputs, targets), on_read=on_read
    )
    # What a study asks of the network is found out before anything is written.
    _check(found.model, place, material)
    example = example_input(material)
    folding = fold_batch_norms(found.model, example)
    skipped = skipped_layers(folding.network, skip_layers)
    uniform = [plan_of(setting, skipped, activations) for setting in settings]
    for plan in {plan.default.granularity: plan for plan in uniform}.values():
        plan.resolve(folding.network)
    mixed = mixed_settings(
        folding.network,
        ways=ways,
        budgets=budgets,
        plans=plans,
        weight_formats=weight_formats,
        skip_layers=skipped,
    )
    work = network_work(folding.network, count_macs(folding.network, example))
    for setting, budget in mixed.budgets.items():
        check_budget(folding.network, plan_of(setting, skipped), work, budget)
    used = {*(method for method, _ in ways), *mixed.methods}
    planned = [*uniform, *mixed.plans.values()]
    in_integers = any(plan.quantizes_activations for plan in planned)
    if runs is not None:
        runs.check_plans(planned)
    needed = mixed.looks_at_inputs or in_integers
    cut = calibration_for(calibration, used, material, needed=needed)
    request = StudyRequest(
        name=found.name,
        model=folding.network,
        model_sha256=model_sha256(found.model),
        degradation=material.degradation,
        pictures=material.pictures,
        settings=(*settings, *mixed.settings),
        within_db=within_db,
        crop_places=[parse_place(text, material.pictures) for text in crops],
        calibration=() if cut is None else material.degraded(cut),
        calibration_sha256=() if cut is None else cut.sha256,
        skip_layers=skipped,
        coverage=coverage(folding, planned),
        activations=activations,
        input_bits=width_of_input(input_bits, planned),
        plans=mixed.plans,
        budgets=mixed.budgets,
        work=work,
        execution=runs,
    )
    return run_study(request, out, device=place, on_progress=on_progress)


def _check(network: nn.Module, device: torch.device, material: Material) -> None:
    """Try the network out on the sizes that it will meet."""
    exact = material.input_size is not None
    interface = material.degradation.interface
    check_network(network, device, interface, material.input_sizes(), exact=exact)
