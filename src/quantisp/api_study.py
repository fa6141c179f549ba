"""The bit-depth study, composed from the rooms."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from quantisp.api_files import QuantizedOrigin, file_texts, made_now
from quantisp.api_inputs import Sources, check_graph, example_input, find_material, try_out
from quantisp.api_models import DEFAULT_MODEL, Model, find_model
from quantisp.api_settings import (
    calibration_for,
    check_profile,
    check_seed,
    find_execution,
    find_settings,
    find_ways,
    fitted_settings,
    one_or_several,
    ordered_activations,
    width_of_input,
)
from quantisp.errors import ModelError, SettingError
from quantisp.evaluation import (
    StudyOutcome,
    StudyProgress,
    StudyRequest,
    coverage,
    mixed_settings,
    parse_place,
    plan_of,
    run_study,
    skipped_layers,
)
from quantisp.inference import find_device
from quantisp.models import LoadedModel, Origin, model_sha256
from quantisp.quantization import (
    ActivationSettings,
    FoldedNetwork,
    Plan,
    QuantizedModel,
    capture_for,
    check_budget,
    count_macs,
    fold_batch_norms,
    network_work,
)
from quantisp.quantization.integer import Accumulator, HardwareProfile, IntegerExecutor
from quantisp.records import StudyResult

if TYPE_CHECKING:
    from quantisp.quantization import Observer

__all__ = ["study", "study_with_crops"]

DEFAULT_BITS = tuple(range(4, 17))
DEFAULT_INPUT_BITS = 10


def study(
    model: Model = DEFAULT_MODEL,
    images: Sources | None = None,
    *,
    weights: str | Path | None = None,
    degradation: str | None = None,
    inputs: str | Path | None = None,
    targets: str | Path | None = None,
    weight_bits: int | Sequence[int] = DEFAULT_BITS,
    activation_bits: int | Sequence[int | None] = (None,),
    methods: str | Sequence[str] = ("rtn",),
    granularities: str | Sequence[str] = ("tensor", "channel"),
    budgets: str | Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    weight_formats: str | Sequence[str] = (),
    calibration: Sources | None = None,
    skip_layers: str | Sequence[str] = (),
    observer: str = "mse",
    input_bits: int | None = None,
    sum_bits: int | None = None,
    within_db: float = 0.05,
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "auto",
    execution: str = "simulated",
    accumulator: Accumulator | None = None,
    fit: bool = False,
    profile: HardwareProfile | None = None,
) -> StudyResult:
    """How much quality each number of weight bits costs.

    For example ``study(weight_bits=[6, 8]).rows[0].drop_db``.

    Args:
        model, weights: as for :func:`load_model`, or a network.
        images: files, folders, globs, or the word ``sample``, which None stands for. Of raw files
            nobody knows the truth: they are compared with the float network's output.
        degradation: what the network undoes: ``mosaic`` (the network's own CFA; the default where
            it names one), ``mosaic:CFA``, ``raw:ISO``, ``noise:SIGMA`` in 8-bit steps,
            ``downscale:FACTOR``.
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
            of least error within them, for each method, granularity and width of activations.
        plans: more rows, by name.
        weight_formats: such as ``fp8-e4m3``: rows to compare with.
        observer: how ranges of activations are found: ``mse``, ``minmax`` or ``percentile``.
        input_bits: 4 to 16, of every network's input, the float one's too; None is 10 where
            activations have bits, and an input as it is where they have none.
        sum_bits: 4 to 16, of activations that are added to others; None is as wide as they are.
        within_db: the drop that the recommendation allows.
        seed: of the calibration crops' places, and of what methods draw at random; the same seed
            gives the same codes.
        out: keeps ``study.json``, ``study.csv``, every finished job, and in ``networks`` what
            looked at inputs to be rounded there, so that a killed study goes on; None keeps
            nothing.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        execution: of settings with bits for activations: ``simulated`` in float32, or ``integer``,
            to the very numbers that hardware would give.
        accumulator: of ``integer`` execution; None is the profile's, else as wide as sums have to
            be.
        fit: change weights so that no input makes a sum that the accumulator does not hold.
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
            seed=seed,
            out=Path(scratch) / "study" if out is None else Path(out),
            device=device,
            execution=execution,
            accumulator=accumulator,
            fit=fit,
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
    weight_bits: int | Sequence[int] = DEFAULT_BITS,
    activation_bits: int | Sequence[int | None] = (None,),
    methods: str | Sequence[str] = ("rtn",),
    granularities: str | Sequence[str] = ("tensor", "channel"),
    budgets: str | Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    weight_formats: str | Sequence[str] = (),
    calibration: Sources | None = None,
    skip_layers: str | Sequence[str] = (),
    observer: str = "mse",
    input_bits: int | None = None,
    sum_bits: int | None = None,
    within_db: float = 0.05,
    seed: int = 0,
    crops: Sequence[str] = (),
    device: str = "auto",
    execution: str = "simulated",
    accumulator: Accumulator | None = None,
    fit: bool = False,
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
    check_seed(seed)
    found = find_model(model, weights)
    if isinstance(found.model, QuantizedModel | IntegerExecutor):
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
    if sum_bits is not None and ordered_activations(activation_bits) == (None,):
        raise SettingError(
            "expected activation bits beside a width of sums, found only float: give "
            "--activation-bits, or leave out --sum-bits"
        )
    if profile is not None:
        check_profile(profile, [granularity for _, granularity in ways], plans)
        activations = profile.applied(activations)
        if execution == "integer":
            accumulator = accumulator or profile.accumulator
    if fit:
        activations = fitted_settings(activations, accumulator, plans)
    runs = find_execution(execution, accumulator, place)
    material = find_material(
        found,
        images,
        degradation=degradation,
        pairs=(inputs, targets),
        captures=True,
        on_read=on_read,
    )
    # What a study asks of the network is found out before anything is written.
    try_out(found.model, place, material)
    example = example_input(material)
    folding = fold_batch_norms(found.model, example)
    skipped = skipped_layers(folding.network, one_or_several(skip_layers))
    uniform = [plan_of(setting, skipped, activations) for setting in settings]
    for plan in {plan.default.granularity: plan for plan in uniform}.values():
        plan.resolve(folding.network)
    mixed = mixed_settings(
        folding.network,
        ways=ways,
        budgets=one_or_several(budgets),
        plans=plans,
        weight_formats=one_or_several(weight_formats),
        skip_layers=skipped,
        activation_bits=ordered_activations(activation_bits),
    )
    work = network_work(folding.network, count_macs(folding.network, example))
    for setting, budget in mixed.budgets.items():
        plan = plan_of(setting, skipped, activations)
        check_budget(folding.network, plan, work, budget)
    used = {*(method for method, _ in ways), *mixed.methods}
    planned = [*uniform, *mixed.plans.values()]
    in_integers = any(plan.quantizes_activations for plan in planned)
    if runs is not None:
        runs.check_plans(planned)
    needed = mixed.looks_at_inputs or in_integers
    cut = calibration_for(calibration, used, material, needed=needed, seed=seed)
    given = [] if cut is None else material.degraded(cut)
    graph = capture_for(planned, folding.network, given)
    check_graph(graph, folding.network, material)
    digest = model_sha256(found.model)
    request = StudyRequest(
        name=found.name,
        model=folding.network,
        model_sha256=digest,
        degradation=material.degradation,
        pictures=material.pictures,
        settings=(*settings, *mixed.settings),
        within_db=within_db,
        crop_places=[parse_place(text, material.pictures) for text in crops],
        calibration=given,
        calibration_sha256=() if cut is None else cut.sha256,
        seed=seed,
        skip_layers=skipped,
        coverage=coverage(folding, planned),
        activations=activations,
        input_bits=width_of_input(input_bits, planned),
        plans=mixed.plans,
        budgets=mixed.budgets,
        work=work,
        graph=graph,
        execution=runs,
        file_texts=_file_texts(found, folding, digest, 0 if cut is None else len(cut.sha256), seed),
    )
    return run_study(request, out, device=place, on_progress=on_progress)


def _file_texts(
    found: LoadedModel, folding: FoldedNetwork, digest: str, pictures: int, seed: int
) -> dict[str, str]:
    """For files that are models of their own; those of what cannot be built again are not."""
    if found.preset is None:
        return {}
    provenance = made_now(
        found, "quantisp study", f"calibrated on {pictures} pictures, seed {seed}"
    )
    origin = Origin(preset=found.preset, pattern=found.pattern, provenance=provenance)
    return file_texts(QuantizedOrigin(origin=origin, float_sha256=digest, folded=folding.folded))
