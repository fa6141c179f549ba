"""A network, pictures and a study small enough to run in a second."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import find_images
from quantisp.evaluation import Measurement, StudyPicture, StudyRequest, mosaicked, survey
from quantisp.models import DePhaseNet, DePhaseNetConfig, model_sha256
from quantisp.records import Setting

KODAK_CFA = CFAPattern.named("rgbw-kodak")
CONFIG = DePhaseNetConfig(fine_channels=8, fine_blocks=1, coarse_channels=8, coarse_blocks=1)
# Height and width: whole periods, odd ones, and more than one tile of 128 px.
SIZES = {"even": (40, 48), "odd": (37, 51), "tiled": (140, 150)}
SETTINGS = tuple(
    Setting(method="rtn", granularity=granularity, weight_bits=bits)
    for granularity, bits in (("tensor", 4), ("tensor", 8), ("channel", 4))
)
# Float and the settings, on each picture.
JOBS = (1 + len(SETTINGS)) * len(SIZES)


@functools.cache
def _linear_restoration() -> Tensor:
    """The skip that restores soft pictures best, by least squares: about 34 dB."""
    rgb = torch.cat([truth(seed, 80, 80) for seed in range(20, 28)]).double()
    phases = functional.pixel_unshuffle(mosaic(rgb, KODAK_CFA), 4)
    inputs = functional.unfold(phases, 5, padding=2).transpose(0, 1).flatten(1)
    outputs = functional.pixel_unshuffle(rgb, 4).transpose(0, 1).flatten(1)
    ridge = torch.eye(len(inputs), dtype=torch.float64)
    weights = torch.linalg.solve(inputs @ inputs.T + ridge, inputs @ outputs.T)
    return weights.T.reshape(48, 16, 5, 5).float()


def tiny_net(seed: int = 1) -> DePhaseNet:
    """A linear restoration, and small random corrections."""
    torch.manual_seed(seed)
    net = DePhaseNet(CONFIG, KODAK_CFA).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.1)
        net.tail.weight.mul_(0.02)
        net.tail.bias.zero_()
        net.skip.weight.copy_(_linear_restoration())
        net.skip.bias.zero_()
    return net


def soft_picture(seed: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Colours that change over about 8 px, some of them saturated, as uint8 (height, width, 3)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    smooth = functional.interpolate(coarse, size=(height, width), mode="bilinear")
    saturated = smooth.mul(1.6).sub(0.3).clamp(0.0, 1.0)
    return saturated[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()


def write_pictures(folder: Path) -> Path:
    folder.mkdir()
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        Image.fromarray(soft_picture(seed, height, width)).save(folder / f"{name}.png")
    return folder


def surveyed(*sources: Path) -> tuple[StudyPicture, ...]:
    return survey(find_images(sources), mosaicked(KODAK_CFA))


def request(
    pictures: Sequence[StudyPicture], net: nn.Module | None = None, **changes: Any
) -> StudyRequest:
    net = net or tiny_net()
    content: dict[str, Any] = {
        "name": "tiny",
        "model": net,
        "model_sha256": model_sha256(net),
        "degradation": mosaicked(KODAK_CFA),
        "pictures": pictures,
        "settings": SETTINGS,
        "within_db": 0.05,
    }
    return StudyRequest(**{**content, **changes})


def measurement(mse: float = 1e-4, **changes: Any) -> Measurement:
    content: dict[str, Any] = {
        "mse": mse,
        "mse_crop10": mse,
        "ssim": 0.9,
        "mse_to_float": 1e-5,
        "tile_mse": ((mse,),),
    }
    return Measurement(**{**content, **changes})


def picture(name: str, height: int = 64, width: int = 64) -> StudyPicture:
    return StudyPicture(
        name=name, path=Path(f"{name}.png"), sha256=name, height=height, width=width
    )


def truth(seed: int, height: int, width: int) -> Tensor:
    """As read from a file, (1, 3, height, width)."""
    return torch.from_numpy(soft_picture(seed, height, width)).permute(2, 0, 1)[None] / 255.0
