"""A preset and pictures small enough to train and study in a second, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from quantisp.cfa import CFAPattern
from quantisp.models import DePhaseNet, DePhaseNetConfig, zoo
from quantisp.training import TrainSettings

KODAK_CFA = CFAPattern.named("rgbw-kodak")
TINY = DePhaseNetConfig(fine_channels=8, fine_blocks=1, coarse_channels=8, coarse_blocks=1)
OTHER = DePhaseNetConfig(fine_channels=12, fine_blocks=1, coarse_channels=8, coarse_blocks=1)
SETTINGS = TrainSettings(
    steps=12,
    batch=4,
    patch_px=32,
    last_patch_px=48,
    warmup_steps=3,
    validate_every=5,
    snapshot_every=2,
    precision="float32",
)
BUILDERS = MappingProxyType(
    {"tiny": partial(DePhaseNet, TINY), "other": partial(DePhaseNet, OTHER)}
)


def know_tiny_presets() -> None:
    """For a process of its own; a test asks for the fixture ``tiny_presets``."""
    zoo.BUILDERS = BUILDERS
    torch.set_num_threads(1)


def tiny_net(seed: int = 1) -> DePhaseNet:
    torch.manual_seed(seed)
    return DePhaseNet(TINY, KODAK_CFA).eval()


def write_pictures(folder: Path, count: int, px: int) -> Path:
    """Colours that change over about 8 px."""
    folder.mkdir()
    for seed in range(count):
        generator = torch.Generator().manual_seed(1000 * px + seed)
        coarse = torch.rand(1, 3, px // 8, px // 8, generator=generator)
        smooth = functional.interpolate(coarse, size=(px, px), mode="bilinear")
        samples = smooth[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
        Image.fromarray(samples).save(folder / f"picture{seed}.png")
    return folder


def arguments(pictures: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Of ``train_model``."""
    return {
        "preset": "tiny",
        "pattern": KODAK_CFA,
        "data": [pictures / "train"],
        "validation": [pictures / "val"],
        "out": out,
        "settings": SETTINGS,
        "command": "quantisp train --data train",
        **changes,
    }


def run_python(code: str, *options: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which can import this file."""
    paths = [str(Path(__file__).parent), str(Path(zoo.__file__).parents[2])]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
