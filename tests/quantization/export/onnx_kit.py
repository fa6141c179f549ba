"""What ``Everything`` lacks of a graph's operations, and sizes that follow from the picture's."""

from __future__ import annotations

from functools import cache

import torch
from activation_kit import noise
from export_kit import in_integers
from torch import Tensor, nn
from torch.nn import functional

from quantisp.quantization import capture
from quantisp.quantization.integer import IntegerNetwork


class Rest(nn.Module):
    """Pads to whole folds by itself, in every mode, and takes parts of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 4, (3, 2), padding="same")
        self.fold = nn.Conv2d(4, 8, 3, stride=2, dilation=2)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, groups=2, padding=1, output_padding=1)
        self.down = nn.Conv2d(8, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = -x.shape[2] % 4, -x.shape[3] % 4
        y = functional.pad(x, (0, columns, 0, rows))
        y = functional.relu(self.head(y))
        y = functional.pad(y, (1, 2, 2, 1), mode="circular")
        y = functional.pad(y, (2, 1, 1, 2), mode="replicate")
        y = functional.relu(self.up(self.fold(y)) - 0.25)
        y = torch.tanh(self.down(y)) - 2 * self.down(y)
        y = functional.pixel_shuffle(y, 2)
        y = torch.cat([y, functional.pixel_shuffle(functional.pixel_unshuffle(y, 2), 2)], 1)
        half = y[:, :, y.shape[2] // 4 :, : y.shape[3] // 2]
        first, second = half.chunk(2, 1)
        # The output shares the values of what is used elsewhere: it gets a scale of its own.
        return torch.cat([first, torch.sigmoid(second) * first], 1)


@cache
def rest_integers(power_of_two: bool = False) -> IntegerNetwork:
    torch.manual_seed(6)
    network = Rest().eval()
    graph = capture(network, noise(1, 1, 16, 16))
    # Weights of five bits have one scale, as a transposed convolution in groups needs it.
    bits = 5 if power_of_two else 8
    return in_integers(network, graph, bits, 8, power_of_two=power_of_two, tie_rule="half_even")
