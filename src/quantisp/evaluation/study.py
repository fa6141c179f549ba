"""The bit-depth study: every setting on every picture, against the float network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from quantisp.errors import RunError
from quantisp.evaluation.captures import REFERENCE
from quantisp.evaluation.crops import CropPlace, cut_crops, find_places
from quantisp.evaluation.execution import IntegerTwin
from quantisp.evaluation.float_outputs import FloatOutputs
from quantisp.evaluation.kodak import is_kodak
from quantisp.evaluation.measure import Measurement, measure
from quantisp.evaluation.network_files import NetworkFiles
from quantisp.evaluation.networks import StudyNetworks
from quantisp.evaluation.pictures import Sample, StudyPicture, load_sample
from quantisp.evaluation.request import StudyRequest
from quantisp.evaluation.restoration import restored_sample
from quantisp.evaluation.sheets import cost_sheets, with_sheets
from quantisp.evaluation.store import JobStore, job_key
from quantisp.evaluation.summary import summarise
from quantisp.evaluation.treatments import Treatments
from quantisp.files import write_atomically
from quantisp.metrics import rounded_to_8_bits
from quantisp.quantization import Plan, plan_cost
from quantisp.records import Crop, Setting, StudyResult
from quantisp.records.costs import CostSheet

__all__ = ["StudyOutcome", "StudyProgress", "run_study"]

# What it takes to round a network by its inputs, in restored pixels: for the progress alone.
ROUNDING_PX = 20_000_000
SENSITIVITY_PX = 60_000_000


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
        treatments = Treatments(
            model=request.model,
            model_sha256=request.model_sha256,
            plans=request.plans,
            budgets=request.budgets,
            skip_layers=request.skip_layers,
            activations=request.activations,
            work=request.work,
            calibration=request.calibration,
            calibration_sha256=request.calibration_sha256,
            seed=request.seed,
            store=store,
            folder=folder,
        )
        files = NetworkFiles(folder, request.model, request.file_texts)
        networks = StudyNetworks(request, device, files)
        run = _Run(request, store, treatments, FloatOutputs(folder), networks, on_progress)
        references = run.float_jobs()
        outcomes = [(setting, run.setting_jobs(setting)) for setting in request.settings]
        floats = Plan.uniform(weight_bits=None).resolve(request.model)
        result = summarise(
            request.name,
            request.model_sha256,
            None if request.degradation.pattern is None else str(request.degradation.pattern),
            {
                **request.protocol(),
                **request.degradation.protocol(),
                **({"reference": REFERENCE} if request.has_captures else {}),
                "pictures": len(request.pictures),
                "calibration_pictures": len(request.calibration_sha256),
                "seed": request.seed,
                "image_set": "kodak" if is_kodak([p.sha256 for p in request.pictures]) else None,
            },
            references,
            outcomes,
            within_db=request.within_db,
            coverage=request.coverage,
            costs={setting: treatments.cost(setting) for setting in request.settings},
            layer_bits={setting: treatments.layer_bits(setting) for setting in request.settings},
            decisions={setting: run.decisions(setting) for setting in request.settings},
            float_cost=request.work and plan_cost(request.work, floats),
        )
        result = with_sheets(result, run.cost_sheets(), request.within_db)
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
        treatments: Treatments,
        floats: FloatOutputs,
        networks: StudyNetworks,
        on_progress: Callable[[StudyProgress], None] | None,
    ) -> None:
        self.request = request
        self.store = store
        self.treatments = treatments
        self.floats = floats
        self.on_progress = on_progress
        self.networks = networks
        self.measured = self.kept = 0
        self.done_px = 0
        self.total_px = sum(p.pixels for p in self._missing("float")) + self._work_px(
            request.settings
        )

    def float_jobs(self) -> dict[str, Measurement]:
        return {
            p.name: self._job(p, "float", self.networks.original) for p in self.request.pictures
        }

    def setting_jobs(self, setting: Setting) -> dict[str, Measurement]:
        if self.treatments.is_open(setting):
            self._choose(setting)
        key = self.treatments.key(setting)
        network = self.networks.original
        # Rounding methods may take long: only a setting with work left is rounded.
        if self._missing(key) and setting.weight_format is not None:
            network = self.networks.cast(setting.weight_format)
        elif self._missing(key):
            network = self.networks.quantized(
                self.treatments.plan(setting),
                setting,
                on_layer=partial(self._rounding, setting.label, self.done_px),
            )
        return {p.name: self._job(p, key, network, setting) for p in self.request.pictures}

    def decisions(self, setting: Setting) -> tuple[str, ...]:
        """What the method of the setting's weights tried and kept, where it says so."""
        if setting.weight_format is not None:
            return ()
        return self.networks.decisions(self.treatments.plan(setting), setting)

    def cost_sheets(self) -> dict[Setting, CostSheet]:
        """Of settings with activations in integers."""
        request = self.request
        plans = {
            setting: plan
            for setting in request.settings
            if setting.weight_format is None
            and (plan := self.treatments.plan(setting)).quantizes_activations
        }
        graph = self.networks.graph() if plans else None
        factor = request.degradation.interface.factor
        return cost_sheets(request.model, graph, plans, request.pictures, factor)

    def crops(self, places: Sequence[CropPlace]) -> tuple[Crop, ...]:
        shown = self.networks.shown
        by_name = {picture.name: picture for picture in self.request.pictures}
        return cut_crops(
            self.networks.original,
            self.request.degradation,
            [self._sample(by_name[place.image]) for place in places],
            places,
            {s.width: partial(self.networks.quantized, plan, s) for plan, s in shown.items()},
            method=", ".join(dict.fromkeys(s.method for s in shown.values())),
        )

    def _sample(self, picture: StudyPicture) -> Sample:
        """What the network gets of a picture, and the truth; of a raw file, float's picture."""
        sample = load_sample(picture, self.request.degradation, self.request.input_bits)
        if picture.capture is None:
            return sample
        content = picture.content_sha256
        output = self.floats.get(content)
        if output is None:
            output = self.floats.keep(content, restored_sample(self.networks.original, sample))
        return replace(sample, truth=rounded_to_8_bits(output))

    def _missing(self, plan: str) -> list[StudyPicture]:
        """The pictures whose job under a plan is not done yet."""
        return [p for p in self.request.pictures if self.store.get(self._key(p, plan)) is None]

    def _work_px(self, settings: Sequence[Setting]) -> int:
        """What is left to do; weights are rounded once for all activation widths."""
        pictures_px = sum(picture.pixels for picture in self.request.pictures)
        rounded: set[Plan] = set()
        total = 0
        for setting in settings:
            if self.treatments.is_open(setting):
                total += SENSITIVITY_PX + ROUNDING_PX + pictures_px
                continue
            missing = self._missing(self.treatments.key(setting))
            total += sum(picture.pixels for picture in missing)
            if missing and setting.weight_format is None:
                plan = self.treatments.plan(setting).without_activations()
                rounded |= set() if self.networks.is_rounded(plan, setting) else {plan}
        return total + ROUNDING_PX * len(rounded)

    def _choose(self, setting: Setting) -> None:
        """The plan for a budget, and what is left to do when it is known."""
        last = 0

        def show(count: int, total: int) -> None:
            nonlocal last
            self.done_px += SENSITIVITY_PX * count // total - last
            last = SENSITIVITY_PX * count // total
            self._show(f"{setting.label}, sensitivity of layer {count} of {total}")

        self.treatments.choose(setting, show)
        left = self.request.settings[self.request.settings.index(setting) :]
        self.total_px = self.done_px + self._work_px(left)

    def _rounding(self, label: str, before: int, count: int, total: int) -> None:
        # Methods of several steps count in other units in each, and do not always do all of them.
        self.done_px = max(self.done_px, before + ROUNDING_PX * count // total)
        self._show(f"{label}, rounding: {100 * count // total}%")

    def _show(self, doing: str) -> None:
        if self.on_progress is not None:
            self.on_progress(
                StudyProgress(done_px=self.done_px, total_px=self.total_px, doing=doing)
            )

    def _key(self, picture: StudyPicture, plan: str) -> str:
        return job_key(
            model_sha256=self.request.model_sha256,
            image_sha256=picture.content_sha256,
            plan=plan,
            protocol={
                **self.request.protocol(),
                **self.request.degradation.identity(),
                "calibration": list(self.request.calibration_sha256),
                "seed": self.request.seed,
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
        try:
            outcome = self._measured(picture, network, against_float=setting is not None)
        except RunError as error:
            raise RunError(f"{_described(setting)}, {picture.name}: {error}") from error
        self.store.put(key, outcome)
        self.measured += 1
        self.done_px += picture.pixels
        self._show(f"{_described(setting)}, {picture.name}")
        return outcome

    def _measured(
        self, picture: StudyPicture, network: nn.Module, *, against_float: bool
    ) -> Measurement:
        sample = self._sample(picture)
        restored, content = restored_sample(network, sample), picture.content_sha256
        if not against_float:
            self.floats.keep(content, restored)
            return measure(restored, sample.truth)
        reference = self.floats.get(content)
        if reference is None:
            reference = self.floats.keep(content, restored_sample(self.networks.original, sample))
        measured = measure(restored, sample.truth, reference)
        if not isinstance(network, IntegerTwin):
            return measured
        simulated = restored_sample(network.simulation, sample)
        return measured.with_simulation(restored, simulated, sample.truth)


def _described(setting: Setting | None) -> str:
    if setting is None:
        return "float"
    activations = "" if setting.activation_bits is None else f", A{setting.activation_bits}"
    return f"{setting.label} per {setting.granularity}{activations}"
