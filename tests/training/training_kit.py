"""A network and pictures small enough to train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quantisp.cfa import CFAPattern
from quantisp.data import PatchCache, TileSet
from quantisp.models import DePhaseNet, DePhaseNetConfig
from quantisp.training import TrainSettings

KODAK_CFA = CFAPattern.named("rgbw-kodak")
CONFIG = DePhaseNetConfig(fine_channels=8, fine_blocks=1, coarse_channels=8, coarse_blocks=1)


def tiny_net(seed: int = 0) -> DePhaseNet:
    torch.manual_seed(seed)
    return DePhaseNet(CONFIG, KODAK_CFA)


def soft_picture(seed: int, px: int = 96) -> Tensor:
    """Colours that change over about 8 px, as uint8 (3, px, px)."""
    coarse = torch.rand(1, 3, px // 8, px // 8, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(coarse, size=(px, px), mode="bilinear", align_corners=False)
    return smooth[0].mul(255).round().to(torch.uint8)


def tiny_patches(kind: type[PatchCache] = PatchCache) -> PatchCache:
    return kind(TileSet.of([soft_picture(seed) for seed in range(3)]))


def validation() -> list[Tensor]:
    return [soft_picture(seed, px=32)[None] / 255.0 for seed in (10, 11)]


def tiny_settings(**changes: Any) -> TrainSettings:
    settings: dict[str, Any] = {
        "steps": 12,
        "batch": 4,
        "patch_px": 32,
        "last_patch_px": 48,
        "warmup_steps": 3,
        "validate_every": 5,
        "precision": "float32",
    }
    return TrainSettings(**{**settings, **changes})


def saved_run(folder: Path) -> dict[str, Any]:
    """The checkpoint without what a clock or a free setting writes into it."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    for point in state["curve"]:
        del point["elapsed_s"]
    del state["elapsed_s"], state["settings"]
    return state


def equal(one: Any, other: Any) -> bool:
    """To the last bit, all the way down."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other
