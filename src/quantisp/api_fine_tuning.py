"""Quantization-aware fine-tuning: what a training run does differently for a quantized network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.api_files import QuantizedOrigin, load_quantized, save_quantized
from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import PatchCache, calibration_batches
from quantisp.errors import ModelError, SettingError
from quantisp.files import make_folder
from quantisp.models import Origin, model_sha256
from quantisp.quantization import (
    FINE_TUNING,
    IncrementalGuide,
    Plan,
    QuantizedModel,
    TrainableModel,
    fold_batch_norms,
    needs_calibration,
    quantize,
)
from quantisp.training import START_NAME, CurvePoint, Guide, Workers, validation_psnr_db

__all__ = ["FineTunedRun", "FineTuning", "begin_fine_tuning"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a network is quantized, and trained so.

    Args:
        plan: by which it is rounded before the first step.
        form: ``incremental`` rounds one layer after the other while the rest makes up for it;
            ``lsq`` learns all codes and scales; ``plain`` takes the absolute maximum of a weight.

    Raises:
        SettingError: no such form.
    """

    plan: Plan
    form: str = "incremental"

    def __post_init__(self) -> None:
        if self.form not in FINE_TUNING:
            raise SettingError(
                f"expected a form of fine-tuning among {', '.join(FINE_TUNING)}, found "
                f"{self.form!r}: correct --qat"
            )

    def check(self, model: nn.Module, *, trained: bool) -> None:
        """Find out, before anything is written, whether a network can be fine-tuned so.

        Raises:
            SettingError: nobody has trained it yet, or nothing would be quantized.
            PlanError: the plan does not fit it.
        """
        if not trained:
            raise SettingError(
                "expected a trained network to fine-tune, found none: give --init beside "
                "--weight-bits or --plan"
            )
        if all(entry.weight_bits is None for entry in self.plan.resolve(model).values()):
            raise SettingError("expected a layer with weight bits in the plan, found none")

    def check_machine(self, *, devices: int, nodes: int, compiled: bool, precision: str) -> None:
        """Find out whether it can be done in such processes, and numbers.

        Raises:
            SettingError: the incremental form by several of them, compiled, or all in bfloat16.
        """
        if self.form == "incremental" and precision == "bfloat16":
            raise SettingError(
                "expected --precision auto or float32 beside --qat incremental, which measures "
                "what bfloat16 would do to each network, found bfloat16: choose one of them"
            )
        if self.form == "incremental" and (devices > 1 or nodes > 1 or compiled):
            raise SettingError(
                "expected one device, and no --compile, for --qat incremental, whose network "
                "changes on its way: leave them out, or choose --qat lsq"
            )


@dataclass(frozen=True, kw_only=True)
class FineTunedRun:
    """A quantized network while it is fine-tuned, and where the best one is kept.

    Args:
        tuning: how.
        model: what is trained.
        float_sha256: the digest of the float network that was quantized.
        folded: the layer that each of its batch normalisations was folded into, by name.
        start_psnr_db: before the first step, on the validation pictures.
        path: of the best one.
        guide: what rounds it on the way; None where it is rounded from the first step on.
    """

    tuning: FineTuning
    model: TrainableModel
    float_sha256: str
    folded: Mapping[str, str]
    start_psnr_db: float
    path: Path
    guide: Guide | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What tells the run from another one: resuming with another is refused."""
        return {"quantization": f"{self.tuning.form} {self.tuning.plan.to_json()}"}

    def keep(self, averaged: nn.Module, point: CurvePoint, origin: Origin) -> None:
        """Write what is trained in its quantized form, if it is better than the start.

        Raises:
            OutputError: the place cannot be written to.
        """
        if point.psnr_db <= self.start_psnr_db:
            log.info("the start, at %.3f dB, is still the best", self.start_psnr_db)
        elif isinstance(averaged, TrainableModel):
            self._write(averaged.quantized(), origin)

    def keep_start(self, start: QuantizedModel, origin: Origin) -> None:
        """Write the start as the best so far, if nothing better is there from before.

        Raises:
            OutputError: the place cannot be written to.
        """
        if not self.path.exists():
            self._write(start, origin)

    def record(self) -> dict[str, object]:
        """For the record of the run."""
        return {
            "form": self.tuning.form,
            "plan": self.tuning.plan.to_json(),
            "decisions": list(self.model.decisions),
            "float_sha256": self.float_sha256,
            "start_psnr_db": round(self.start_psnr_db, 4),
        }

    def _write(self, quantized: QuantizedModel, origin: Origin) -> None:
        made = QuantizedOrigin(origin=origin, float_sha256=self.float_sha256, folded=self.folded)
        save_quantized(self.path, quantized, made)


def begin_fine_tuning(
    model: nn.Module,
    tuning: FineTuning,
    patches: PatchCache,
    validation: Sequence[Float[Tensor, "1 3 _ _"]],
    *,
    seed: int,
    largest_px: int,
    pattern: CFAPattern,
    origin: Callable[[str], Origin],
    path: Path,
    workers: Workers,
    in_float32: bool = False,
    on_layer: Callable[[int, int], None] | None = None,
) -> FineTunedRun:
    """Fold a float network's batch normalisations, round it by the plan, and make it trainable.

    What was rounded is kept beside ``path`` as ``start.safetensors``; a run that goes on takes
    that, and does not round again.

    Args:
        model: the float network; it is not changed.
        tuning: how.
        patches: of the pictures to train on, which methods that need inputs look at.
        validation: pictures to measure the start on.
        seed: chooses the patches to round by, and what the method draws.
        largest_px: a patch may be no larger.
        pattern: the CFA at pixel (0, 0) of every patch and picture.
        origin: of the network, for a file, from a note on how good it is.
        path: of the best one.
        workers: the first of which rounds.
        in_float32: train all layers of the incremental form in float32.
        on_layer: called with the number of layers rounded, and of all.

    Raises:
        ModelError: what is kept is of another plan or network.
    """
    kept = path.with_name(START_NAME)
    make_folder(path.parent)
    incremental = tuning.form == "incremental"
    structure, digest = origin(""), model_sha256(model)
    example = patches.batch(seed=seed, step=0, size=1, patch_px=largest_px).cpu()
    folding = fold_batch_norms(model, mosaic(example, pattern))
    for name, reason in folding.left.items():
        log.info("in float: %s, for %s", name, reason)
    rounding = workers.rank == 0 and not kept.exists()
    looking = rounding and _looks_at_inputs(tuning.plan, folding.network)
    inputs = None
    if incremental or looking:
        crops = calibration_batches(patches, seed=seed, largest_px=largest_px)
        inputs = [mosaic(x.cpu(), pattern) for x in crops]
    if rounding:
        rounded = quantize(
            folding.network, tuning.plan, inputs if looking else None, seed=seed, on_layer=on_layer
        )
        made = QuantizedOrigin(origin=structure, float_sha256=digest, folded=folding.folded)
        save_quantized(kept, rounded, made)
    workers.wait()
    found = load_quantized(kept, structure.preset if ":" in structure.preset else None)
    start = found.model
    if not isinstance(start, QuantizedModel) or (found.float_sha256, start.plan) != (
        digest,
        tuning.plan,
    ):
        raise ModelError(
            f"expected the network and plan of the run, {kept} was rounded from or by another: "
            "give the same settings and --init, or choose another --out"
        )
    guide = floats = None
    if incremental:
        teacher = copy.deepcopy(folding.network).to(workers.device).eval()
        guide = IncrementalGuide(teacher, tuning.plan, inputs or [], in_float32=in_float32)
        floats = copy.deepcopy(guide.begins_with).cpu()
    trainable = TrainableModel(start, tuning.form, floats=floats)
    if guide is not None:
        trainable.bfloat16_layers = guide.bfloat16_layers
        if guide.bfloat16_layers:
            log.info("in bfloat16 while it is trained: %d layers", len(guide.bfloat16_layers))
    psnr = 0.0
    if workers.rank == 0:
        # The incremental form begins in float: the start is what it has to beat.
        measured = copy.deepcopy(start).eval() if incremental else trainable
        measured = measured.to(workers.device)
        psnr = validation_psnr_db(measured, validation, pattern, workers.device)
        log.info("quantized, before the first step: %.3f dB on validation", psnr)
    run = FineTunedRun(
        tuning=tuning,
        model=trainable,
        float_sha256=digest,
        folded=folding.folded,
        start_psnr_db=workers.from_first(psnr),
        path=path,
        guide=guide,
    )
    if workers.rank == 0:
        run.keep_start(
            start if incremental else trainable.quantized(),
            origin(f"{psnr:.3f} (before fine-tuning)"),
        )
    return run


def _looks_at_inputs(plan: Plan, model: nn.Module) -> bool:
    planned = [entry for entry in plan.resolve(model).values() if entry.weight_bits is not None]
    by_inputs = any(needs_calibration(entry.method) for entry in planned)
    return by_inputs or plan.quantizes_activations
