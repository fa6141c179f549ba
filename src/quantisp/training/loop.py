"""The training loop: seeded, resumable, fitted to a number of steps or to a time."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import PatchCache
from quantisp.errors import ModelError, RunError
from quantisp.inference import keep_freed_memory
from quantisp.metrics import mean_squared_error, psnr_db, rounded_to_8_bits
from quantisp.training.checkpoints import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from quantisp.training.losses import frequency_loss
from quantisp.training.precision import autocast_context, keep_in_float32, resolve_precision
from quantisp.training.settings import TrainSettings

__all__ = ["CurvePoint", "TrainProgress", "train"]

log = logging.getLogger(__name__)

# The squared error of a typical patch has about 1/64 of the gradient of its absolute error. Equal
# gradients keep Adam's running moments valid when the loss changes.
SQUARED_ERROR_WEIGHT = 64.0
LEAST_LEARNING_RATE = 0.01
# A picture that is restored exactly must not make the mean infinite.
PSNR_CAP_DB = 100.0


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One validation: the mean PSNR of the averaged weights on the validation pictures."""

    step: int
    elapsed_s: float
    loss: float
    psnr_db: float


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Where a run is. ``share`` is 0 at the beginning and 1 at the end."""

    step: int
    share: float
    elapsed_s: float
    loss: float
    patches_per_s: float
    curve: tuple[CurvePoint, ...]


def train(
    model: nn.Module,
    patches: PatchCache,
    validation: Sequence[Float[Tensor, "1 3 _ _"]],
    settings: TrainSettings,
    *,
    pattern: CFAPattern,
    folder: Path,
    resume: bool = False,
    device: torch.device | str = "cpu",
    on_progress: Callable[[TrainProgress], None] | None = None,
    on_better: Callable[[nn.Module, CurvePoint], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Train ``model`` to restore RGB from its mosaic, and leave the averaged weights in it.

    Args:
        model: maps a mosaic (n, 1, h, w) to RGB (n, 3, h, w).
        patches: where batches come from.
        validation: whole pictures in [0, 1], none of them also trained on.
        settings: how.
        pattern: the CFA at pixel (0, 0) of every patch.
        folder: where ``checkpoint.pt`` is kept; it must exist.
        resume: go on from the checkpoint in ``folder``. On one CPU with the same number of
            threads, a run by steps that was stopped and resumed gives the very same weights.
        on_progress: called about once a second.
        on_better: called with the averaged model at each validation that is the best so far.

    Returns:
        Every validation.

    Raises:
        ModelError: the checkpoint is missing, damaged, or of another model or run.
        RunError: the loss is not finite any more.
    """
    keep_freed_memory()
    # What a run is of, besides its settings: resuming with anything else would be another run.
    of = {"CFA": repr(pattern), "training pictures": patches.sha256()}
    run = _Run(model, settings, pattern, folder / CHECKPOINT_NAME, torch.device(device), of)
    if resume:
        run.restore()
    with keep_in_float32(model, run.device):
        _advance_to_end(run, patches, validation, on_progress, on_better)
    model.load_state_dict(run.averaged.state_dict())
    return tuple(run.curve)


def _advance_to_end(
    run: _Run,
    patches: PatchCache,
    validation: Sequence[Float[Tensor, "1 3 _ _"]],
    on_progress: Callable[[TrainProgress], None] | None,
    on_better: Callable[[nn.Module, CurvePoint], None] | None,
) -> None:
    last_report = last_checkpoint = time.monotonic()
    while run.share() < 1.0:
        began = time.monotonic()
        run.advance(patches)
        now = time.monotonic()
        run.elapsed_s += now - began
        finished = run.share() >= 1.0
        if run.step % run.settings.validate_every == 0 or finished:
            point = run.validate(validation)
            run.elapsed_s += time.monotonic() - now
            best = all(point.psnr_db > earlier.psnr_db for earlier in run.curve[:-1])
            if on_better is not None and best:
                on_better(run.averaged, point)
            run.save()
            last_checkpoint = time.monotonic()
        elif now - last_checkpoint > run.settings.checkpoint_every_s:
            run.save()
            last_checkpoint = time.monotonic()
        if on_progress is not None and (now - last_report > 1.0 or finished):
            on_progress(run.progress())
            last_report = now


class _Run:
    """The state of one training run: all of it is in the checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        pattern: CFAPattern,
        checkpoint: Path,
        device: torch.device,
        of: dict[str, str],
    ) -> None:
        self.settings = settings
        self.of = of
        self.pattern = pattern
        self.checkpoint = checkpoint
        self.device = device
        self.model = model.to(device=device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.averaged = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.precision = resolve_precision(settings.precision, device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.step = self.first_step = 0
        self.elapsed_s = self.first_elapsed_s = 0.0
        self.loss = math.nan
        self.curve: list[CurvePoint] = []

    def share(self) -> float:
        by_steps = self.step / self.settings.steps if self.settings.steps else 0.0
        by_time = self.elapsed_s / self.settings.time_limit_s if self.settings.time_limit_s else 0.0
        return max(by_steps, by_time)

    def progress(self) -> TrainProgress:
        # Of this process: the ones before it may have had another machine.
        seconds = self.elapsed_s - self.first_elapsed_s
        rate = (self.step - self.first_step) * self.settings.batch / seconds if seconds else 0.0
        return TrainProgress(
            step=self.step,
            share=min(self.share(), 1.0),
            elapsed_s=self.elapsed_s,
            loss=self.loss,
            patches_per_s=rate,
            curve=tuple(self.curve),
        )

    def advance(self, patches: PatchCache) -> None:
        settings = self.settings
        share = self.share()
        late = share >= 1.0 - settings.last_phase
        patch_px = settings.last_patch_px if late else settings.patch_px
        size = max(round(settings.batch * (settings.patch_px / patch_px) ** 2), 1)
        rgb = patches.batch(seed=settings.seed, step=self.step, size=size, patch_px=patch_px)
        rgb = rgb.to(self.device, non_blocking=True)
        with autocast_context(self.precision, self.device):
            restored = self.model(mosaic(rgb, self.pattern))
        restored = restored.float()
        if late:
            loss = SQUARED_ERROR_WEIGHT * functional.mse_loss(restored, rgb)
        else:
            loss = functional.l1_loss(restored, rgb)
            loss = loss + settings.frequency_weight * frequency_loss(restored, rgb)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(share)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.optimizer.step()
        self.step += 1
        self._average()
        self.loss = float(loss.detach())
        if not math.isfinite(self.loss):
            raise RunError(
                f"the loss is {self.loss} at step {self.step}: begin again in another "
                "--out with a lower --learning-rate, by --init from the best weights so far"
            )

    def _learning_rate(self, share: float) -> float:
        settings = self.settings
        warm = min(1.0, (self.step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))
        least = LEAST_LEARNING_RATE
        return settings.learning_rate * warm * (least + (1.0 - least) * cosine)

    @torch.no_grad()
    def _average(self) -> None:
        # The mean follows fast in the beginning, when the first weights are of no worth.
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(value.detach(), 1.0 - decay)
        for mean, value in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mean.copy_(value)

    @torch.inference_mode()
    def validate(self, pictures: Sequence[Float[Tensor, "1 3 _ _"]]) -> CurvePoint:
        total = 0.0
        for picture in pictures:
            rgb = picture.to(self.device)
            restored = rounded_to_8_bits(self.averaged(mosaic(rgb, self.pattern)))
            total += min(psnr_db(mean_squared_error(restored, rgb)), PSNR_CAP_DB)
        point = CurvePoint(
            step=self.step,
            elapsed_s=self.elapsed_s,
            loss=self.loss,
            psnr_db=total / len(pictures),
        )
        if not math.isfinite(point.psnr_db):
            raise RunError(
                f"the network's output is not finite at step {self.step}: begin again with a "
                "lower --learning-rate"
            )
        self.curve.append(point)
        log.info("step %d: loss %.5f, validation %.3f dB", point.step, point.loss, point.psnr_db)
        return point

    def save(self) -> None:
        write_checkpoint(
            self.checkpoint,
            {
                "schema": 1,
                "settings": asdict(self.settings),
                "of": self.of,
                "model": self.model.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "elapsed_s": self.elapsed_s,
                "loss": self.loss,
                "curve": [asdict(point) for point in self.curve],
            },
        )

    def restore(self) -> None:
        state = read_checkpoint(self.checkpoint)
        try:
            self._check_settings({**state["settings"], **state["of"]})
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = self.first_step = int(state["step"])
            self.elapsed_s = self.first_elapsed_s = float(state["elapsed_s"])
            self.loss = float(state["loss"])
            self.curve = [CurvePoint(**point) for point in state["curve"]]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"expected a checkpoint of this model and run, {self.checkpoint} does not fit "
                f"({str(error).splitlines()[0]}): give the same settings, or start without --resume"
            ) from error

    def _check_settings(self, saved: dict[str, Any]) -> None:
        # A run may be given more time or steps; anything else would make it another run.
        free = {"steps", "time_limit_s", "checkpoint_every_s", "validate_every"}
        now = {**asdict(self.settings), **self.of}
        changed = [name for name in now if name not in free and now[name] != saved.get(name)]
        if changed:
            raise ValueError(
                ", ".join(f"{name} was {saved.get(name)}, is {now[name]}" for name in changed)
            )
