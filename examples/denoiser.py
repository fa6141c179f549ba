"""A DnCNN-like denoiser with batch normalisation: trained in about a minute, then studied.

Train it:   python examples/denoiser.py --out out/denoiser.safetensors
Study it:   PYTHONPATH=examples quantisp study --model denoiser:build \\
                --weights out/denoiser.safetensors --degradation noise:25 \\
                --method rtn,auto --granularity channel --out out/denoiser

Source of the network: Zhang et al., "Beyond a Gaussian denoiser: residual learning of deep CNN for
image denoising", IEEE TIP 2017, here with fewer layers and channels.
"""

from __future__ import annotations

import torch
from small_training import arguments, patches, save, train
from torch import Tensor, nn

SIGMA = 25.0 / 255.0


class Denoiser(nn.Module):
    """RGB with noise to RGB: the network estimates the noise, which is taken away.

    ::

        x ─▶ conv ─▶ ReLU ─▶ (conv ─▶ batch norm ─▶ ReLU) · n ─▶ conv ─▶ x - that
    """

    def __init__(self, channels: int = 24, blocks: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
        for _ in range(blocks):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, noisy: Tensor) -> Tensor:
        return noisy - self.body(noisy)


def build() -> nn.Module:
    """The factory that ``--model denoiser:build`` calls."""
    return Denoiser()


def with_noise(rgb: Tensor, generator: torch.Generator) -> Tensor:
    return rgb + SIGMA * torch.randn(rgb.shape, generator=generator)


if __name__ == "__main__":
    given = arguments(__doc__, "out/denoiser.safetensors", steps=1500)
    network = build()
    train(network, patches(given), with_noise, given)
    save(network, given.out)
