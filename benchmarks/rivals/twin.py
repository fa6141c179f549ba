"""DePhaseNet for the graph readers of other toolkits: no in-place operation, no size in the graph.

The layers have the same names and weights as the original's. What the original does to the mosaic
before its first layer (padding, folding, the planes of the letters) is done outside of the graph,
in :class:`WithFolding`, for it holds no weight, and sizes that were traced would be fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import masks, pad_to_periods
from quantisp.models import DePhaseNet
from quantisp.models.dephasenet import DistributedAttention

# Sums in another order differ in the last bits of float32.
TOLERANCE = 2e-6


class Block(nn.Module):
    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.conv1 = source.get_submodule("conv1")
        self.relu = nn.ReLU()
        self.conv2 = source.get_submodule("conv2")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.relu(self.conv1(x))) + x


class Gate(nn.Module):
    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.squeeze = source.get_submodule("squeeze")
        self.relu = nn.ReLU()
        self.excite = source.get_submodule("excite")
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.sigmoid(self.excite(self.relu(self.squeeze(x))))


class Subnet(nn.Module):
    def __init__(self, source: DistributedAttention) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(block) for block in source.blocks)
        self.gates = nn.ModuleList(Gate(gate) for gate in source.gates)

    def forward(self, x: Tensor) -> Tensor:
        total = x
        for block, gate in zip(self.blocks, self.gates, strict=True):
            x = block(x)
            total = total + x * gate(x)
        return total


class Twin(nn.Module):
    """All that holds weights: folded phases and planes in, RGB out.

    Args:
        source: of the packaged configuration; it is shared, so pass a copy.
    """

    def __init__(self, source: DePhaseNet) -> None:
        super().__init__()
        self.coarse_head = source.coarse_head
        self.coarse_subnet = Subnet(source.coarse_subnet)  # pyright: ignore[reportArgumentType]
        self.coarse_to_fine = source.coarse_to_fine
        self.fine_head = source.fine_head
        self.fine_subnet = Subnet(source.fine_subnet)  # pyright: ignore[reportArgumentType]
        self.tail = source.tail
        self.skip = source.skip
        self.up = nn.PixelShuffle(2)
        self.unfold_fine = nn.PixelShuffle(source.fold_px // 2)
        self.unfold = nn.PixelShuffle(source.fold_px)

    def forward(self, phases: Tensor, planes: Tensor) -> Tensor:
        coarse = self.coarse_subnet(self.coarse_head(phases))
        upward = self.up(self.coarse_to_fine(coarse))
        fine = self.fine_subnet(self.fine_head(planes) + upward)
        return self.unfold_fine(self.tail(fine)) + self.unfold(self.skip(phases))


class WithFolding(nn.Module):
    """A mosaic of any size through a network of folded inputs.

    Args:
        core: a :class:`Twin`, or what a toolkit made of one.
        source: the original, whose folding it is.
    """

    def __init__(self, core: nn.Module, source: DePhaseNet) -> None:
        super().__init__()
        self.core = core
        self.fold_px, self.pattern = source.fold_px, source.pattern

    def forward(self, mosaic: Tensor) -> Tensor:
        height, width = mosaic.shape[2:]
        phases, planes = folded_inputs(mosaic, self)
        return self.core(phases, planes)[:, :, :height, :width]


def folded_inputs(mosaic: Tensor, source: DePhaseNet | WithFolding) -> tuple[Tensor, Tensor]:
    """The phases and the letters' planes of a mosaic, padded to whole folds."""
    fold_px, pattern = source.fold_px, source.pattern
    padded = pad_to_periods(mosaic, multiple=fold_px, period=pattern.period)
    letters = masks(pattern, *padded.shape[2:]).to(padded.dtype)
    phases = functional.pixel_unshuffle(padded, fold_px)
    # Contiguous: some toolkits ask for it.
    return phases.contiguous(), functional.pixel_unshuffle(padded * letters, fold_px // 2)


@torch.no_grad()
def twin_error(source: DePhaseNet, core: nn.Module, mosaics: list[Tensor]) -> float:
    """The largest difference of the twin's outputs, as a share of the original's largest."""
    twin = WithFolding(core, source)
    pairs = [(twin(x), source(x)) for x in mosaics]
    return max(float((ours - own).abs().max() / own.abs().max()) for ours, own in pairs)
