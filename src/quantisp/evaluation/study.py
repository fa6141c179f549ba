"""The bit-depth study: every setting on every picture, against the float network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from quantisp.evaluation.crops import CropPlace, cut_crops, find_places
from quantisp.evaluation.degradation import Degradation
from quantisp.evaluation.float_outputs import FloatOutputs
from quantisp.evaluation.kodak import is_kodak
from quantisp.evaluation.measure import Measurement, measure
from quantisp.evaluation.pictures import StudyPicture, load_sample
from quantisp.evaluation.protocol import MEASUREMENT
from quantisp.evaluation.restoration import restored_sample
from quantisp.evaluation.store import JobStore, job_key
from quantisp.evaluation.summary import summarise
from quantisp.files import write_atomically
from quantisp.inference import prepare
from quantisp.quantization import LayerPlan, Plan, needs_calibration, quantize
from quantisp.records import Crop, LayerResult, Setting, StudyResult

__all__ = [
    "StudyOutcome",
    "StudyProgress",
    "StudyRequest",
    "plan_of",
    "run_study",
]

log = logging.getLogger(__name__)

# What it takes to round a network by its inputs, in restored pixels: for the progress alone.
ROUNDING_PX = 20_000_000


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What to study.

    Args:
        name: of the model, for people.
        model: undoes the degradation; it is not changed.
        model_sha256: the digest of its weights.
        degradation: what is done to each picture.
        pictures: at least one.
        settings: at least one; rows come in this order.
        within_db: the drop that the recommendation allows.
        crop_places: what to show; empty is the places where bits hurt most.
        calibration: network inputs, for settings whose methods need some.
        calibration_sha256: the digest of each picture that they were cut from.
        skip_layers: the names of layers that stay in float.
        coverage: what became of each module with parameters.
    """

    name: str
    model: nn.Module
    model_sha256: str
    degradation: Degradation
    pictures: Sequence[StudyPicture]
    settings: Sequence[Setting]
    within_db: float
    crop_places: Sequence[CropPlace] = ()
    calibration: Sequence[Tensor] = ()
    calibration_sha256: Sequence[str] = ()
    skip_layers: Sequence[str] = ()
    coverage: tuple[LayerResult, ...] = ()

    def plan_of(self, setting: Setting) -> Plan:
        """The plan that a setting stands for in this study."""
        return plan_of(setting, self.skip_layers)

    def identity(self, device: torch.device) -> dict[str, object]:
        """What tells this study from another one in the same folder."""
        return {
            "model": self.model_sha256,
            "degradation": dict(self.degradation.identity()),
            "pictures": [picture.content_sha256 for picture in self.pictures],
            "settings": [str(self.plan_of(setting).to_json()) for setting in self.settings],
            "protocol": dict(MEASUREMENT),
            "tolerance": self.within_db,
            "calibration": list(self.calibration_sha256),
            # Not of the result, but sums in another order would not give the same bytes.
            "device": device.type,
            "torch version": torch.__version__,
        }


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """How far a study is, counted in restored pixels; ``doing`` is for people."""

    done_px: int
    total_px: int
    doing: str


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """The table, and the same places of some pictures at several widths.

    ``measured_jobs`` were done by this run, ``kept_jobs`` by runs before it.
    """

    result: StudyResult
    crops: tuple[Crop, ...]
    measured_jobs: int
    kept_jobs: int


def plan_of(setting: Setting, skip_layers: Sequence[str] = ()) -> Plan:
    """The plan that a setting stands for, with some layers in float."""
    plan = Plan.uniform(
        weight_bits=setting.weight_bits,
        activation_bits=setting.activation_bits,
        method=setting.method,
        granularity=setting.granularity,
    )
    for name in skip_layers:
        plan = plan.with_layer(name, LayerPlan(weight_bits=None))
    return plan


def run_study(
    request: StudyRequest,
    folder: Path,
    *,
    device: torch.device,
    on_progress: Callable[[StudyProgress], None] | None = None,
) -> StudyOutcome:
    """Do every job that is not done yet, and write ``study.json`` and ``study.csv``.

    Each job is kept in ``folder`` as it finishes, so a killed study loses the job in hand.

    Args:
        request: what to study.
        folder: empty, new, or of the same study.
        device: where the networks run.
        on_progress: called after each job.

    Raises:
        OutputError: ``folder`` cannot be used, or is full.
    """
    with JobStore(folder, request.identity(device)) as store:
        run = _Run(request, store, FloatOutputs(folder), device, on_progress)
        references = run.float_jobs()
        outcomes = [(setting, run.setting_jobs(setting)) for setting in request.settings]
        result = summarise(
            request.name,
            request.model_sha256,
            None if request.degradation.pattern is None else str(request.degradation.pattern),
            {
                **MEASUREMENT,
                **request.degradation.protocol(),
                "pictures": len(request.pictures),
                "calibration_pictures": len(request.calibration_sha256),
                "image_set": "kodak" if is_kodak([p.sha256 for p in request.pictures]) else None,
            },
            references,
            outcomes,
            within_db=request.within_db,
            coverage=request.coverage,
        )
        write_atomically(folder / "study.csv", result.to_csv().encode())
        write_atomically(folder / "study.json", result.to_json().encode())
        places = request.crop_places or find_places(request.pictures, references, outcomes)
        crops = run.crops(places)
        run.floats.remove()
    return StudyOutcome(result=result, crops=crops, measured_jobs=run.measured, kept_jobs=run.kept)


class _Run:
    """One pass over the jobs of a study."""

    def __init__(
        self,
        request: StudyRequest,
        store: JobStore,
        floats: FloatOutputs,
        device: torch.device,
        on_progress: Callable[[StudyProgress], None] | None,
    ) -> None:
        self.request = request
        self.store = store
        self.floats = floats
        self.device = device
        self.on_progress = on_progress
        self.network = prepare(copy.deepcopy(request.model), device)
        # By plan, as long as crops may ask for them: what looks at inputs takes minutes to round.
        self.rounded: dict[Plan, nn.Module] = {}
        series = request.settings[0].series
        self.group = {request.plan_of(s): s for s in request.settings if s.series == series}
        self.measured = self.kept = 0
        self.done_px = 0
        self.total_px = sum(p.pixels for p in self._missing("float")) + sum(
            self._work_px(request.plan_of(setting)) for setting in request.settings
        )

    def float_jobs(self) -> dict[str, Measurement]:
        return {p.name: self._job(p, "float", self.network) for p in self.request.pictures}

    def setting_jobs(self, setting: Setting) -> dict[str, Measurement]:
        plan = self.request.plan_of(setting)
        key = plan.to_json()
        # Rounding methods may take long: only a setting with work left is rounded.
        network = self._quantized(plan, shown=True) if self._missing(key) else self.network
        return {p.name: self._job(p, key, network, setting) for p in self.request.pictures}

    def crops(self, places: Sequence[CropPlace]) -> tuple[Crop, ...]:
        return cut_crops(
            self.network,
            self.request.degradation,
            {picture.name: picture for picture in self.request.pictures},
            places,
            {s.weight_bits: partial(self._quantized, plan) for plan, s in self.group.items()},
        )

    def _missing(self, plan: str) -> list[StudyPicture]:
        """The pictures whose job under a plan is not done yet."""
        return [p for p in self.request.pictures if self.store.get(self._key(p, plan)) is None]

    def _work_px(self, plan: Plan) -> int:
        missing = self._missing(plan.to_json())
        rounding = ROUNDING_PX if missing and needs_calibration(plan.default.method) else 0
        return rounding + sum(picture.pixels for picture in missing)

    def _quantized(self, plan: Plan, *, shown: bool = False) -> nn.Module:
        if plan in self.rounded:
            return self.rounded[plan]
        calibrated = needs_calibration(plan.default.method)
        quantized = quantize(
            self.request.model,
            plan,
            self.request.calibration if calibrated else None,
            on_layer=partial(self._rounding, plan) if calibrated and shown else None,
        )
        for line in quantized.decisions:
            log.info("%s bits: %s", plan.default.weight_bits, line)
        network = prepare(quantized, self.device)
        if calibrated and plan in self.group:
            self.rounded[plan] = network
        return network

    def _rounding(self, plan: Plan, count: int, total: int) -> None:
        self.done_px += ROUNDING_PX * count // total - ROUNDING_PX * (count - 1) // total
        if self.on_progress is not None:
            doing = f"{plan.default.weight_bits} bits, rounding layer {count} of {total}"
            self.on_progress(
                StudyProgress(done_px=self.done_px, total_px=self.total_px, doing=doing)
            )

    def _key(self, picture: StudyPicture, plan: str) -> str:
        return job_key(
            model_sha256=self.request.model_sha256,
            image_sha256=picture.content_sha256,
            plan=plan,
            protocol={
                **MEASUREMENT,
                **self.request.degradation.identity(),
                "calibration": list(self.request.calibration_sha256),
            },
        )

    def _job(
        self, picture: StudyPicture, plan: str, network: nn.Module, setting: Setting | None = None
    ) -> Measurement:
        key = self._key(picture, plan)
        outcome = self.store.get(key)
        if outcome is not None:
            self.kept += 1
            return outcome
        outcome = self._measured(picture, network, against_float=setting is not None)
        self.store.put(key, outcome)
        self.measured += 1
        self.done_px += picture.pixels
        if self.on_progress is not None:
            width = (
                "float"
                if setting is None
                else f"{setting.weight_bits} bits per {setting.granularity}"
            )
            self.on_progress(
                StudyProgress(
                    done_px=self.done_px, total_px=self.total_px, doing=f"{width}, {picture.name}"
                )
            )
        return outcome

    def _measured(
        self, picture: StudyPicture, network: nn.Module, *, against_float: bool
    ) -> Measurement:
        sample = load_sample(picture, self.request.degradation)
        restored, content = restored_sample(network, sample), picture.content_sha256
        if not against_float:
            self.floats.keep(content, restored)
            return measure(restored, sample.truth)
        reference = self.floats.get(content)
        if reference is None:
            reference = self.floats.keep(content, restored_sample(self.network, sample))
        return measure(restored, sample.truth, reference)
