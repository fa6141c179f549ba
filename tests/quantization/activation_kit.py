"""Small networks that are captured and quantized in a moment."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern
from quantisp.models import DePhaseNet, DePhaseNetConfig


class Everything(nn.Module):
    """Most operations that a graph has nodes for, at any even size."""

    def __init__(self) -> None:
        super().__init__()
        checks = (torch.arange(16).view(1, 4, 4) % 3 == 0).float()
        self.register_buffer("checks", checks, persistent=False)
        self.head = nn.Conv2d(4, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 4, 3, padding="same", groups=4, padding_mode="reflect")
        self.mix = nn.Linear(4, 4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.share = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 4, x.shape[3] // 4
        y = functional.pixel_unshuffle(x * self.checks.repeat(1, rows, columns), 2)
        y = functional.relu6(self.grouped(functional.relu_(self.head(y))))
        z = functional.leaky_relu(functional.silu(functional.hardtanh(y)).clamp_(0, 2) - 0.1, 0.1)
        z = torch.cat([z, y], 1)[:, :4].addcmul(z, y)
        z = functional.pad(functional.interpolate(z, scale_factor=2), (1, 2, 1, 2))[
            :, :, 1:-2, 1:-2
        ]
        first, second = z.chunk(2, 1)
        z = torch.cat([z * self.share, first * second, 1 - torch.sigmoid(first)], 1)[:, 2:6]
        z = self.mix(z.movedim(1, -1)).permute(0, 3, 1, 2).transpose(2, 3).transpose(3, 2)
        return self.up(z)[:, :, ::2, ::2][:, :, : x.shape[2], : x.shape[3]]


@cache
def tiny_dephasenet() -> DePhaseNet:
    """One block a level; its blocks are not near zero, as they are before training."""
    torch.manual_seed(5)
    config = DePhaseNetConfig(fine_channels=8, fine_blocks=1, coarse_channels=8, coarse_blocks=2)
    net = DePhaseNet(config, CFAPattern.named("rgbw-kodak")).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("conv2.weight", "tail.weight", "excite.weight")):
                parameter.copy_(0.2 * torch.randn_like(parameter))
        # An output around the middle of its range.
        net.skip.weight.mul_(0.1)
        net.skip.bias.fill_(0.5)
    return net


class Chain(nn.Module):
    """A convolution, a ReLU and a convolution; the first output pixel depends on nine inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.relu(self.first(x)))


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
