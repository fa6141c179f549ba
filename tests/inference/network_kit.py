"""A network that every pixel within reach matters to."""

from __future__ import annotations

import torch
from torch import nn

from quantisp.cfa import CFAPattern
from quantisp.models import DePhaseNet, DePhaseNetConfig

CONFIG = DePhaseNetConfig(fine_channels=8, fine_blocks=1, coarse_channels=8, coarse_blocks=1)


def random_net(name: str) -> DePhaseNet:
    """For the CFA of this name."""
    torch.manual_seed(5)
    net = DePhaseNet(CONFIG, CFAPattern.named(name)).requires_grad_(False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net
