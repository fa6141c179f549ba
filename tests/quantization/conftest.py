"""A network with every kind of layer that can be quantized."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 5, 2, stride=2)
        self.mix = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(self.head(x)))
        x = self.up(self.norm(self.grouped(x)))
        return self.mix(x.movedim(1, -1)).movedim(-1, 1)


@pytest.fixture
def zoo() -> nn.Module:
    torch.manual_seed(7)
    return Zoo().eval()
