"""How to train."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

from quantisp.errors import SettingError
from quantisp.training.precision import resolve_precision

__all__ = ["TrainSettings"]

ABOVE_ZERO = frozenset(
    {"steps", "time_limit_s", "batch", "patch_px", "last_patch_px", "validate_every"}
    | {"learning_rate", "clip_norm"}
)
SHARES = frozenset({"last_phase", "ema_decay"})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train. The run ends at ``steps`` or after ``time_limit_s``, whichever comes first.

    Args:
        seed: of the patches and of their augmentation.
        steps: batches in all, or None.
        time_limit_s: seconds in all, over every resumption, or None. The schedule follows the
            clock then, so only a run by steps is repeatable to the last bit.
        batch: patches a step in the first phase; the last phase keeps the number of pixels.
        patch_px, last_patch_px: height and width of a patch in the first and the last phase.
        last_phase: share of the run that minimises squared error on the larger patches.
        learning_rate: at the peak; it warms up over ``warmup_steps``, then falls as a cosine.
        weight_decay: of AdamW.
        frequency_weight: of the frequency loss beside the absolute error.
        clip_norm: gradients are scaled down to this norm.
        ema_decay: of the running mean of the weights, which is what is validated and kept.
        validate_every: steps.
        checkpoint_every_s: seconds.
        precision: ``float32``, ``bfloat16`` (autocast), or ``auto``: bfloat16 where the hardware
            has it.

    Raises:
        SettingError: a value out of range.
    """

    seed: int = 0
    steps: int | None = None
    time_limit_s: float | None = None
    batch: int = 16
    patch_px: int = 64
    last_patch_px: int = 128
    last_phase: float = 0.25
    learning_rate: float = 1.2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    frequency_weight: float = 0.1
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    validate_every: int = 2000
    checkpoint_every_s: float = 120.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.steps is None and self.time_limit_s is None:
            raise SettingError("training needs an end: give --steps, --time-limit, or both")
        for name, value in asdict(self).items():
            if name in SHARES and not 0.0 <= value <= 1.0:
                raise SettingError(f"{name} is a share from 0 to 1, found {value}: correct it")
            if name in ABOVE_ZERO and value is not None and not value > 0:
                raise SettingError(f"{name} must be above 0, found {value}: give a larger value")
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"{name} must be finite, found {value}: give a number")
        if not 0 <= self.seed < 2**31:
            raise SettingError(
                f"a seed is an integer from 0 to 2147483647, found {self.seed}: correct --seed"
            )
        resolve_precision(self.precision, torch.device("cpu"))
