"""How to train."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

from quantisp.cfa.domains import DOMAINS
from quantisp.errors import SettingError
from quantisp.training.optimizers import OPTIMIZERS
from quantisp.training.precision import resolve_precision

__all__ = ["TrainSettings"]

# As a share of the peak, where the cosine ends.
LEAST_LEARNING_RATE = 0.01
ABOVE_ZERO = frozenset(
    {"steps", "time_limit_s", "batch", "patch_px", "last_patch_px", "validate_every"}
    | {"learning_rate", "clip_norm", "snapshot_every"}
)
SHARES = frozenset({"last_phase", "ema_decay", "exposure_jitter", "colour_jitter"})
NOT_NEGATIVE = frozenset({"weight_decay", "warmup_steps", "frequency_weight", "detail_power"})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train. The run ends at ``steps`` or after ``time_limit_s``, whichever comes first.

    Args:
        seed: of the patches, of their augmentation and of noise.
        domain: of the mosaics: ``srgb``, coded and clean; ``linear``, as sensors give them; or
            ``root``, the square root of those.
        steps: batches in all, or None.
        time_limit_s: seconds in all, over every resumption, or None. The schedule follows the
            clock then, so only a run by steps is repeatable to the last bit.
        batch: patches a step, over all devices, in the first phase; the last phase keeps the
            number of pixels.
        patch_px, last_patch_px: height and width of a patch in the first and the last phase.
        last_phase: share of the run that minimises squared error on the larger patches.
        detail_power: a place is drawn in proportion to its detail to this power; 0 draws all alike.
        exposure_jitter: a patch is darkened by up to this share.
        colour_jitter: each of R, G and B is darkened by up to this share, on its own.
        optimizer: ``muon`` (AdamW for what is no matrix), or ``adamw``.
        learning_rate: at the peak; it warms up over ``warmup_steps``, then falls as a cosine.
        weight_decay: of both optimizers.
        frequency_weight: of the frequency loss beside the absolute error.
        clip_norm: gradients are scaled down to this norm.
        ema_decay: of the running mean of the weights, which is what is validated and kept.
        validate_every: steps.
        checkpoint_every_s: seconds.
        snapshot_every: steps; after a loss that is not finite, or has jumped, the run goes on from
            the last of these. Checkpoints are snapshots, so a kill loses at most so many more.
        precision: ``float32``, ``bfloat16`` (autocast), or ``auto``: bfloat16 where the hardware
            has it.

    Raises:
        SettingError: a value out of range.
    """

    seed: int = 0
    domain: str = "srgb"
    steps: int | None = None
    time_limit_s: float | None = None
    batch: int = 16
    patch_px: int = 64
    last_patch_px: int = 128
    last_phase: float = 0.25
    detail_power: float = 0.5
    exposure_jitter: float = 0.0
    colour_jitter: float = 0.0
    optimizer: str = "muon"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    frequency_weight: float = 0.1
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    validate_every: int = 2000
    checkpoint_every_s: float = 120.0
    snapshot_every: int = 50
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.steps is None and self.time_limit_s is None:
            raise SettingError("training needs an end: give --steps, --time-limit, or both")
        for name, value in asdict(self).items():
            if name in SHARES and not 0.0 <= value <= 1.0:
                raise SettingError(f"{name} is a share from 0 to 1, found {value}: correct it")
            if name in NOT_NEGATIVE and not value >= 0:
                raise SettingError(f"{name} must be at least 0, found {value}: give a larger value")
            if name in ABOVE_ZERO and value is not None and not value > 0:
                raise SettingError(f"{name} must be above 0, found {value}: give a larger value")
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"{name} must be finite, found {value}: give a number")
        if not 0 <= self.seed < 2**31:
            raise SettingError(
                f"a seed is an integer from 0 to 2147483647, found {self.seed}: correct --seed"
            )
        if self.optimizer not in OPTIMIZERS:
            raise SettingError(
                f"expected an optimizer of {', '.join(OPTIMIZERS)}, found {self.optimizer!r}: "
                "correct it"
            )
        if self.domain not in DOMAINS:
            raise SettingError(
                f"expected a domain of {', '.join(DOMAINS)}, found {self.domain!r}: correct "
                "--domain"
            )
        resolve_precision(self.precision, torch.device("cpu"))

    def learning_rate_at(self, step: int, share: float) -> float:
        """After so many steps, at that share of the run or of a stage of it."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))
        least = LEAST_LEARNING_RATE
        return self.learning_rate * warm * (least + (1.0 - least) * cosine)

    def batch_size(self, patch_px: int) -> int:
        """Patches a step: as many pixels whatever their size, and at least one patch."""
        return max(round(self.batch * (self.patch_px / patch_px) ** 2), 1)
