"""A bit-depth study of a network of your own, here a small Bayer demosaicer without training.

Run it:            python examples/own_network.py
The same by name:  PYTHONPATH=examples quantisp study --model own_network:bilinear --out out/own
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import quantisp
from quantisp.cfa import sparse_planes


class Bilinear(nn.Module):
    """Interpolates each colour from its own samples; its weights are what is quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.pattern = quantisp.CFAPattern.named("bayer")
        self.interpolate = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        cross = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4.0
        green = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4.0
        self.interpolate.weight.data = torch.stack([cross, green, cross])[:, None]

    def forward(self, mosaic: Tensor) -> Tensor:
        return self.interpolate(sparse_planes(mosaic, self.pattern))


def bilinear() -> nn.Module:
    """The factory that ``--model own_network:bilinear`` calls."""
    return Bilinear()


if __name__ == "__main__":
    result = quantisp.study(bilinear(), weight_bits=[2, 3, 4, 8], granularities=["channel"])
    print(f"float: {result.float.psnr_db:.2f} dB")
    for row in result.rows:
        print(f"{row.weight_bits} bits: {row.drop_db:.3f} dB less")
