"""A small super-resolution network (ESPCN, with PixelShuffle): trained in about a minute, studied.

Train it:   python examples/upscaler.py --out out/upscaler.safetensors
Study it:   PYTHONPATH=examples quantisp study --model upscaler:build \\
                --weights out/upscaler.safetensors --degradation downscale:2 \\
                --method rtn,auto --granularity channel --out out/upscaler
As a file:  quantisp study --model out/upscaler.pt2 --degradation downscale:2 --out out/program

Source of the network: Shi et al., "Real-time single image and video super-resolution using an
efficient sub-pixel convolutional neural network", CVPR 2016, here in RGB and on top of bilinear
interpolation.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from small_training import arguments, patches, save, train
from torch import Tensor, nn
from torch.nn import functional

FACTOR = 2


class Upscaler(nn.Module):
    """RGB (n, 3, h, w) to RGB (n, 3, 2h, 2w).

    ::

        x ─▶ conv 5x5 ─▶ ReLU ─▶ conv 3x3 ─▶ ReLU ─▶ conv 3x3 ─▶ PixelShuffle ─▶ + ─▶ y
        └──────────────────── bilinear interpolation ─────────────────────────────┘
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 3 * FACTOR**2, 3, padding=1),
            nn.PixelShuffle(FACTOR),
        )

    def forward(self, small: Tensor) -> Tensor:
        base = functional.interpolate(small, scale_factor=FACTOR, mode="bilinear")
        return base + self.body(small)


def build() -> nn.Module:
    """The factory that ``--model upscaler:build`` calls."""
    return Upscaler()


def smaller(rgb: Tensor, _: torch.Generator) -> Tensor:
    size = [px // FACTOR for px in rgb.shape[2:]]
    return functional.interpolate(rgb, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)


def export(network: nn.Module, path: Path) -> None:
    """As a program for pictures of every size."""
    picture = torch.rand(2, 3, 32, 48)
    sizes = {dim: torch.export.Dim(name, min=lo, max=4096) for dim, name, lo in SIZES}
    with warnings.catch_warnings():
        # PyTorch's own, about itself.
        warnings.simplefilter("ignore")
        program = torch.export.export(network.eval(), (picture,), dynamic_shapes=(sizes,))
        torch.export.save(program, path)
    print(f"wrote {path}")


SIZES = ((0, "count", 1), (2, "height", 8), (3, "width", 8))

if __name__ == "__main__":
    given = arguments(__doc__, "out/upscaler.safetensors", steps=5000)
    network = build()
    train(network, patches(given), smaller, given)
    save(network, given.out)
    export(network, given.out.with_suffix(".pt2"))
