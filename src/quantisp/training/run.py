"""The state of one training run, and how it takes a step, looks back and returns."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.data import PatchCache
from quantisp.errors import ModelError, RunError
from quantisp.training.averaging import follow
from quantisp.training.checkpoints import read_checkpoint, write_checkpoint
from quantisp.training.domains import examples, shown
from quantisp.training.guard import LossGuard
from quantisp.training.guide import Guide
from quantisp.training.losses import training_loss
from quantisp.training.optimizers import Optimizers
from quantisp.training.precision import autocast_context, resolve_precision
from quantisp.training.progress import CurvePoint, TrainProgress, validation_psnr_db
from quantisp.training.settings import TrainSettings
from quantisp.training.workers import Workers

__all__ = ["TrainingRun"]

log = logging.getLogger(__name__)

# After a loss that went astray, the run goes on with this share of the learning rate.
CALMER = 0.7
MAX_RETURNS = 10
# Each return takes its patches from another stream.
STREAM_STEPS = 2**40


class TrainingRun:
    """One run: all of its state is in its snapshots, and each checkpoint is a snapshot.

    Args:
        model: trained in place, on the device of ``workers``.
        settings: how.
        pattern: the CFA at pixel (0, 0) of every patch.
        checkpoint: where it is written to.
        workers: the processes that train together.
        of: what else a run is of; resuming with anything else is refused.
        compiled: train by way of torch.compile.
        guide: changes the network on its way, and says what its output is to be.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        pattern: CFAPattern,
        checkpoint: Path,
        workers: Workers,
        of: dict[str, str],
        *,
        compiled: bool,
        guide: Guide | None = None,
    ) -> None:
        self.settings = settings
        self.of = of
        self.pattern = pattern
        self.checkpoint = checkpoint
        self.workers = workers
        self.guide = guide
        self.device = workers.device
        self.model = model.to(device=self.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.forward = workers.shared(self.model, compiled=compiled)
        # A network with a guide sees to its layers itself.
        own = settings.precision if guide is None else "float32"
        self.precision = resolve_precision(own, self.device)
        self.optimizers = Optimizers(
            settings.optimizer,
            self.model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            other=guide.optimizer(self.model) if guide and settings.optimizer == "muon" else None,
        )
        self.guard = LossGuard()
        self.step = self.first_step = self.changed_at = 0
        self.elapsed_s = self.first_elapsed_s = 0.0
        self.loss = self.learning_rate = math.nan
        self.returns = 0
        self.curve: list[CurvePoint] = []
        self._losses: dict[str, list[Tensor]] = {}
        # The last is kept, but not trusted before the losses after it are sound, too.
        self._pending: dict[str, Any] | None = None
        self._due = False
        self.snapshot = self._state()
        if self.device.type == "cuda":
            # TF32 has 11 significant bits; training has its bfloat16, and validation has float32.
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            # Sizes are few and stay.
            torch.backends.cudnn.benchmark = True

    def share(self) -> float:
        """How much of the run is done, 0 to 1 and a little over."""
        by_steps = self.step / self.settings.steps if self.settings.steps else 0.0
        by_time = self.elapsed_s / self.settings.time_limit_s if self.settings.time_limit_s else 0.0
        return max(by_steps, by_time)

    def progress(self) -> TrainProgress:
        """Where the run is."""
        # Of this process: the ones before it may have had another machine.
        seconds = self.elapsed_s - self.first_elapsed_s
        rate = (self.step - self.first_step) * self.settings.batch / seconds if seconds else 0.0
        return TrainProgress(
            step=self.step,
            share=min(self.share(), 1.0),
            elapsed_s=self.elapsed_s,
            loss=self.loss,
            learning_rate=self.learning_rate,
            patches_per_s=rate,
            curve=tuple(self.curve),
        )

    def advance(self, patches: PatchCache) -> None:
        """Take one step."""
        settings = self.settings
        share = self.share()
        self.lead(share)
        late = share >= 1.0 - settings.last_phase
        patch_px = settings.last_patch_px if late else settings.patch_px
        at = self.step if self.guide is None else self.guide.batch_of(self.step)
        at += self.returns * STREAM_STEPS
        part = (self.workers.rank, self.workers.count)
        rgb = patches.batch(
            seed=settings.seed,
            step=at,
            size=settings.batch_size(patch_px),
            patch_px=patch_px,
            part=part,
        ).to(self.device, non_blocking=True)
        given, target = examples(
            settings.domain, rgb, self.pattern, seed=settings.seed, step=at, part=part
        )
        self.learning_rate = self._learning_rate(share)
        phase = "last" if late else "first"
        if self.guide is not None:
            phase = f"stage {self.guide.stage(share)[0]}"
        loss = self._descend(given, target, at, late=late)
        self.step += 1
        follow(self.averaged, self.model, self.step - self.changed_at, settings.ema_decay)
        self._losses.setdefault(phase, []).append(loss)

    def _descend(self, given: Tensor, target: Tensor, batch: int, *, late: bool) -> Tensor:
        settings = self.settings
        with autocast_context(self.precision, self.device):
            restored = self.forward(given)
        if self.guide is not None:
            loss = self.guide.errors(given, restored.float(), batch).log().mean()
            # As large as an error, for people and for the guard.
            seen = loss.detach().exp()
        else:
            shown_now, weight = shown(settings.domain, restored.float()), settings.frequency_weight
            loss = training_loss(shown_now, target, late=late, frequency_weight=weight)
            seen = loss.detach()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizers.step(self.learning_rate)
        return seen

    @torch.no_grad()
    def lead(self, share: float) -> None:
        """Let the guide change what is due at this share of the run."""
        if self.guide is not None and self.guide.lead(self.model, share):
            # Another network: its mean begins anew.
            self.changed_at = self.step
            self.averaged.load_state_dict(self.model.state_dict())

    @property
    def is_complete(self) -> bool:
        """Whether the network is what it is going to be, and worth validating."""
        return self.guide is None or self.guide.is_complete(self.model)

    def _learning_rate(self, share: float) -> float:
        if self.guide is not None:
            share = self.guide.stage(share)[1]
        return CALMER**self.returns * self.settings.learning_rate_at(self.step, share)

    def is_sound(self) -> bool:
        """Whether the losses since the last look are finite and as usual."""
        sound = True
        for phase, values in self._losses.items():
            losses: list[float] = self.workers.mean(torch.stack(values)).tolist()
            self.loss = losses[-1]
            sound = sound and self.guard.accepts(losses, phase)
        self._losses.clear()
        if sound and self._pending is not None and self._pending["step"] < self.step:
            self._confirm()
        return sound

    def validate(self, pictures: Sequence[Float[Tensor, "1 3 _ _"]]) -> bool:
        """Add a point to the curve; False if the network's output is not finite."""
        mean = 0.0
        if self.workers.rank == 0:
            mean = validation_psnr_db(
                self.averaged, pictures, self.pattern, self.device, self.settings.domain
            )
        mean = self.workers.from_first(mean)
        if not math.isfinite(mean):
            return False
        point = CurvePoint(step=self.step, elapsed_s=self.elapsed_s, loss=self.loss, psnr_db=mean)
        self.curve.append(point)
        log.info("step %d: loss %.5f, validation %.3f dB", point.step, point.loss, point.psnr_db)
        return True

    def keep(self, *, due: bool) -> None:
        """Take a snapshot; once later losses are sound it is what to return to.

        Args:
            due: then it is written as the checkpoint, too.
        """
        self._pending, self._due = self._state(), self._due or due

    def finish(self) -> None:
        """Write the end of the run as the checkpoint."""
        self._pending, self._due = self._state(), True
        self._confirm()

    def _confirm(self) -> None:
        if self._pending is not None:
            self.snapshot, self._pending = self._pending, None
        if self._due:
            self._save()

    def _save(self) -> None:
        self._due = False
        if self.workers.rank == 0:
            write_checkpoint(self.checkpoint, self.snapshot)

    def return_to_snapshot(self) -> None:
        """Go on from the last snapshot, more calmly and with other patches.

        Raises:
            RunError: it was done too often; the checkpoint is the last sound one.
        """
        gone = self.step, self.loss
        returns = self.returns + 1
        if returns > MAX_RETURNS:
            raise RunError(
                f"the loss is {self.loss:.4g} at step {self.step}, after {MAX_RETURNS} returns to "
                f"sound weights, which are still in {self.checkpoint}: begin again in another "
                "--out with a lower --learning-rate, by --init from the best weights so far"
            )
        elapsed_s = self.elapsed_s
        self._load(self.snapshot)
        # Time does not return, and neither does the count: else a run could circle for ever.
        self.returns, self.elapsed_s = returns, elapsed_s
        self._losses.clear()
        self._pending, self.snapshot = None, self._state()
        self._save()
        log.warning(
            "the loss went astray (%.4g at step %d): going on from step %d with %g of the "
            "learning rate and other patches",
            gone[1],
            gone[0],
            self.step,
            CALMER**returns,
        )

    def _state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "schema": 2,
                "settings": asdict(self.settings),
                "of": self.of,
                "model": dict(self.model.state_dict()),
                "averaged": dict(self.averaged.state_dict()),
                "optimizers": self.optimizers.state_dict(),
                "guard": self.guard.state_dict(),
                "step": self.step,
                "changed_at": self.changed_at,
                "returns": self.returns,
                # Of networks that draw numbers themselves, such as Dropout.
                "random": torch.get_rng_state(),
                "elapsed_s": self.elapsed_s,
                "loss": self.loss,
                "curve": [asdict(point) for point in self.curve],
            }
        )

    def _load(self, state: dict[str, Any]) -> None:
        # load_state_dict of an optimizer may keep what it is given, and would then change it.
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.guard.load_state_dict(state["guard"])
        self.step, self.returns = int(state["step"]), int(state["returns"])
        # Runs from before there were guides do not know it.
        self.changed_at = int(state.get("changed_at", 0))
        self.elapsed_s, self.loss = float(state["elapsed_s"]), float(state["loss"])
        self.curve = [CurvePoint(**point) for point in state["curve"]]
        torch.set_rng_state(state["random"])

    def resume(self) -> None:
        """Go on from the checkpoint.

        Raises:
            ModelError: it is missing, damaged, or of another model or run.
        """
        state = read_checkpoint(self.checkpoint)
        try:
            # Runs of before there were other domains do not name theirs.
            self._check_settings({"domain": "srgb", **state["settings"], **state["of"]})
            self._load(state)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"expected a checkpoint of this model and run, {self.checkpoint} does not fit "
                f"({str(error).splitlines()[0]}): give the same settings, or start without --resume"
            ) from error
        self.first_step, self.first_elapsed_s = self.step, self.elapsed_s
        self.snapshot = self._state()

    def _check_settings(self, saved: dict[str, Any]) -> None:
        # A run may be given more time or steps; anything else would make it another run.
        free = {"steps", "time_limit_s", "validate_every", "checkpoint_every_s"}
        now = {**asdict(self.settings), **self.of}
        changed = [
            f"{name} was {saved.get(name)}, is {value}"
            for name, value in now.items()
            if name not in free and saved.get(name) != value
        ]
        if changed:
            raise ValueError(", ".join(changed))
