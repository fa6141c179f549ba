"""The training loop: seeded, resumable, fitted to a number of steps or to a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.data import PatchCache
from quantisp.errors import SettingError
from quantisp.inference import keep_freed_memory
from quantisp.training.checkpoints import CHECKPOINT_NAME
from quantisp.training.guard import CHECK_EVERY
from quantisp.training.guide import Guide
from quantisp.training.precision import keep_in_float32
from quantisp.training.progress import CurvePoint, TrainProgress
from quantisp.training.run import TrainingRun
from quantisp.training.settings import TrainSettings
from quantisp.training.workers import Workers

__all__ = ["train"]


def train(
    model: nn.Module,
    patches: PatchCache,
    validation: Sequence[Float[Tensor, "1 3 _ _"]],
    settings: TrainSettings,
    *,
    pattern: CFAPattern,
    folder: Path,
    resume: bool = False,
    workers: Workers | None = None,
    compiled: bool = False,
    identity: Mapping[str, str] = MappingProxyType({}),
    guide: Guide | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
    on_better: Callable[[nn.Module, CurvePoint], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Train ``model`` to restore RGB from its mosaic, and leave the averaged weights in it.

    A loss that is not finite, or jumps to several times its usual value, takes the run back to its
    last snapshot, from where it goes on with a lower learning rate and other patches.

    Args:
        model: maps a mosaic (n, 1, h, w) to RGB (n, 3, h, w).
        patches: where batches come from.
        validation: whole pictures in [0, 1], none of them also trained on.
        settings: how.
        pattern: the CFA at pixel (0, 0) of every patch.
        folder: where ``checkpoint.pt`` is kept; it must exist.
        resume: go on from the checkpoint in ``folder``. On one CPU with the same number of
            threads, a run by steps that was stopped and resumed gives the very same weights.
        workers: the processes that train together; None is this one alone, on the CPU.
        compiled: train by way of torch.compile.
        identity: what else the run is of, such as formats; resuming with another is refused.
        guide: changes the network in stages, the learning rate of each of which falls to its end,
            and says what the outputs are to be instead of the pictures; for one process. What is
            not complete is not validated.
        on_progress: called about once a second.
        on_better: called with the averaged model at each validation that is the best so far.

    Returns:
        Every validation.

    Raises:
        ModelError: the checkpoint is missing, damaged, or of another model or run.
        SettingError: the batch cannot be shared evenly by the workers.
        RunError: the loss went astray again and again.
    """
    keep_freed_memory()
    workers = workers or Workers()
    # What a run is of, besides its settings: resuming with anything else would be another run.
    of = {
        "CFA": repr(pattern),
        "training pictures": patches.sha256(),
        "validation pictures": _sha256(validation),
        **identity,
    }
    _check_shares(settings, workers)
    run = TrainingRun(
        model,
        settings,
        pattern,
        folder / CHECKPOINT_NAME,
        workers,
        of,
        compiled=compiled,
        guide=guide,
    )
    # A run that was killed before its first checkpoint begins at the beginning.
    if resume and run.checkpoint.exists():
        run.resume()
    with keep_in_float32(model, run.device):
        _Course(run, validation, on_progress, on_better).follow(patches)
    model.load_state_dict(run.averaged.state_dict())
    return tuple(run.curve)


def _sha256(pictures: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{tuple(picture.shape)}".encode() + picture.cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_shares(settings: TrainSettings, workers: Workers) -> None:
    for patch_px in (settings.patch_px, settings.last_patch_px):
        size = settings.batch_size(patch_px)
        if size % workers.count:
            raise SettingError(
                f"expected a batch that {workers.count} processes can share evenly, {size} patches "
                f"of {patch_px} px are none: give a larger --batch"
            )


class _Course:
    """A run from where it is to its end: when to look back, keep, validate and report."""

    def __init__(
        self,
        run: TrainingRun,
        validation: Sequence[Float[Tensor, "1 3 _ _"]],
        on_progress: Callable[[TrainProgress], None] | None,
        on_better: Callable[[nn.Module, CurvePoint], None] | None,
    ) -> None:
        self._run = run
        self._validation = validation
        self._on_progress = on_progress
        self._on_better = on_better
        self._offset_s = run.elapsed_s - time.monotonic()
        self._last_report = self._last_checkpoint = time.monotonic()

    def follow(self, patches: PatchCache) -> None:
        run = self._run
        while run.share() < 1.0:
            run.advance(patches)
            looking = run.step % CHECK_EVERY == 0
            self._tick(looking=looking)
            self._look_back(looking=looking or run.share() >= 1.0)
            self._report(due=time.monotonic() - self._last_report > 1.0)
        run.lead(1.0)
        # A run that ended astray is validated where it was last sound.
        if not run.curve or run.curve[-1].step != run.step:
            while not self._validated():
                run.return_to_snapshot()
                run.lead(1.0)
        run.finish()
        self._report(due=True)

    def _look_back(self, *, looking: bool) -> None:
        run, settings = self._run, self._run.settings
        due = run.share() < 1.0 and run.step % settings.validate_every == 0
        validating = due and run.is_complete
        keeping = validating or run.step % settings.snapshot_every == 0
        if ((looking or keeping) and not run.is_sound()) or (validating and not self._validated()):
            run.return_to_snapshot()
        elif keeping and not validating:
            due = time.monotonic() - self._last_checkpoint > settings.checkpoint_every_s
            self._keep(due=due)

    def _validated(self) -> bool:
        """Validate, and keep what is sound; False if it is not."""
        run = self._run
        if not run.validate(self._validation):
            return False
        self._tick(looking=True)
        best = all(run.curve[-1].psnr_db > earlier.psnr_db for earlier in run.curve[:-1])
        if self._on_better is not None and best:
            self._on_better(run.averaged, run.curve[-1])
        self._keep(due=True)
        return True

    def _keep(self, *, due: bool) -> None:
        self._run.keep(due=due)
        if due:
            self._last_checkpoint = time.monotonic()

    def _tick(self, *, looking: bool) -> None:
        """Time is the first worker's, which the others learn when they look at one another."""
        workers = self._run.workers
        if workers.count == 1 or looking:
            self._run.elapsed_s = workers.from_first(time.monotonic() + self._offset_s)

    def _report(self, *, due: bool) -> None:
        if self._on_progress is not None and due:
            self._on_progress(self._run.progress())
            self._last_report = time.monotonic()
