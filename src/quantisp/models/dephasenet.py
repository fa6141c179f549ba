"""DePhaseNet: a multi-level, multi-phase demosaicing network.

Source: Seo, Kim, Lee, Choi, Song, "On quantization of convolutional neural networks for image
restoration", Electronic Imaging 2022. The paper gives the parts (phase extractors, levels,
subnets of residual and attention blocks, distributed attention) and the cost of 1.9 MMAC per
pixel, but no sizes: the sizes and the wiring below are our reconstruction.

The dataflow, for a 4x4 CFA such as RGBW-K (n letters, H x W px)::

    mosaic 1 x H x W ─┬──────────────────────────────┬─────────────────────────┐
                      │ PE 2: the 16 phases          │ PE 1: R, G, B, W planes │
                      │ fold by 4                    │ fold by 2               │
                      ▼                              ▼                         │
             16 x H/4 x W/4                    4n x H/2 x W/2                  │ fold by 4
                      │ 3x3                          │ 3x3                     │
                      ▼                              ▼                         ▼
             c2 x H/4 x W/4                    c1 x H/2 x W/2            16 x H/4 x W/4
                      │ subnet 2                     │                         │
                      ▼          1x1, unfold by 2    │                         │ 5x5, linear
                      ├──────────────────────────▶ ( + )                       │ (the skip)
                                                     │ subnet 1                │
                                                     ▼                         ▼
                                               c1 x H/2 x W/2            48 x H/4 x W/4
                                                     │ 3x3, unfold by 2        │ unfold by 4
                                                     ▼                         ▼
                                               3 x H x W  ──────▶ ( + ) ◀── 3 x H x W
                                                                    ▼
                                                              RGB 3 x H x W

A subnet of b residual blocks, with distributed attention (a layer-wise proportional sum)::

    x0 ──▶ [residual 1] ──x1──▶ [residual 2] ──x2──▶ … ──▶ [residual b] ──xb
                │                    │                          │
             [gate 1]             [gate 2]                   [gate b]   gate: 1x1 ReLU 1x1 sigmoid
                └───── g1·x1 ───(+)──┴────── g2·x2 ────(+)──────┘
                                                        └──▶ x0 + g1·x1 + … + gb·xb

There is no pooling and no normalisation over space, so an output pixel depends on a bounded
neighbourhood, and tiles with enough margin equal the whole picture. For another CFA, the fold
is the smallest multiple of the tile's period that is at least 4, and half of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern, masks, pad_to_periods
from quantisp.errors import ModelError
from quantisp.models.foldable import BranchedConv, WhiteFirstConv, copy_folded, plain_conv

__all__ = ["PRESETS", "DePhaseNet", "DePhaseNetConfig", "DistributedAttention", "folded"]

PHASES = ("both", "coarse", "fine")


@dataclass(frozen=True, kw_only=True)
class DePhaseNetConfig:
    """The sizes of a DePhaseNet, and which of its parts it has.

    Args:
        fine_channels, fine_blocks: of the subnet at half the fold (1/2 for a 4x4 CFA).
        coarse_channels, coarse_blocks: of the subnet at the whole fold (1/4 for a 4x4 CFA).
        gate_reduction: how many times narrower an attention gate is inside.
        phases: ``both``; ``coarse`` without PE 1, so that subnet 1 has the upward path alone;
            ``fine`` without PE 2 and subnet 2.
        attention: False replaces the proportional sum by x0 + xb.
        skip: False leaves the linear skip out.
        fold_branches: train the 3x3 convolutions of the residual blocks with further branches,
            which :func:`folded` puts into them.
        white_first: the last layer gives W and colour differences, from which RGB is combined.

    Raises:
        ModelError: no such phases.
    """

    fine_channels: int
    fine_blocks: int
    coarse_channels: int
    coarse_blocks: int
    gate_reduction: int = 4
    phases: str = "both"
    attention: bool = True
    skip: bool = True
    fold_branches: bool = False
    white_first: bool = False

    def __post_init__(self) -> None:
        if self.phases not in PHASES:
            raise ModelError(
                f"expected phases of {', '.join(PHASES)}, found {self.phases!r}: choose one"
            )


PRESETS: dict[str, DePhaseNetConfig] = {
    "dephasenet-lite": DePhaseNetConfig(
        fine_channels=32, fine_blocks=8, coarse_channels=96, coarse_blocks=10
    ),
    "dephasenet": DePhaseNetConfig(
        fine_channels=128, fine_blocks=16, coarse_channels=128, coarse_blocks=6
    ),
}


class DePhaseNet(nn.Module):
    """Restores RGB from a mosaic.

    Args:
        config: the sizes and parts.
        pattern: the CFA that the network is made for, at pixel (0, 0) of its input.

    Raises:
        ModelError: the CFA would need a fold of more than 16 px, or W comes first and it has none.
    """

    # Training in bfloat16 leaves these in float32: the picture itself passes through the skip.
    float32_layers = ("skip",)
    # These meet the CFA's phases: a network for another CFA learns them anew.
    cfa_layers = ("coarse_head", "fine_head", "skip")

    def __init__(self, config: DePhaseNetConfig, pattern: CFAPattern) -> None:
        super().__init__()
        self.config = config
        self.pattern = pattern
        self.fold_px = _fold(pattern)
        fine_fold = self.fold_px // 2
        fine, coarse = config.fine_channels, config.coarse_channels

        # What a configuration leaves out gives zeros, so that the dataflow is always the same.
        sees_fine, sees_coarse = config.phases != "coarse", config.phases != "fine"
        conv = BranchedConv if config.fold_branches else plain_conv

        self.coarse_head = (
            nn.Conv2d(self.fold_px**2, coarse, 3, padding=1) if sees_coarse else Zeros(coarse)
        )
        self.coarse_subnet = (
            _subnet(config, coarse, config.coarse_blocks, conv) if sees_coarse else Zeros(coarse)
        )
        self.coarse_to_fine = nn.Conv2d(coarse, fine * 4, 1) if sees_coarse else Zeros(fine * 4)
        letters = len(pattern.letters)
        self.fine_head = (
            nn.Conv2d(letters * fine_fold**2, fine, 3, padding=1) if sees_fine else Zeros(fine)
        )
        self.fine_subnet = _subnet(config, fine, config.fine_blocks, conv)
        self.tail = _tail(config, pattern, fine_fold)
        self.skip = (
            nn.Conv2d(self.fold_px**2, 3 * self.fold_px**2, 5, padding=2)
            if config.skip
            else Zeros(3 * self.fold_px**2)
        )
        # Which letter stands where in one fold; not learned, so not part of the weights.
        where = masks(pattern, self.fold_px, self.fold_px).to(torch.float32)
        self.register_buffer("letter_masks", where, persistent=False)
        self.letter_masks: Tensor
        _init_as_residual(self)

    def forward(self, mosaic: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Restore RGB.

        Args:
            mosaic: in [0, 1], at least one period high and wide; padded by whole periods inside.

        Returns:
            RGB in the domain of the mosaic, not clipped.
        """
        height, width = mosaic.shape[2:]
        return self.forward_padded(self.pad_input(mosaic))[:, :, :height, :width]

    def pad_input(self, mosaic: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h2 w2"]:
        """The mosaic, lengthened at the bottom and right to whole folds by its own periods."""
        return pad_to_periods(mosaic, multiple=self.fold_px, period=self.pattern.period)

    def forward_padded(self, padded: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 3 h w"]:
        """As :meth:`forward`, of a mosaic in whole folds."""
        phases = functional.pixel_unshuffle(padded, self.fold_px)
        planes = functional.pixel_unshuffle(self._sparse_planes(padded), self.fold_px // 2)

        coarse = self.coarse_subnet(self.coarse_head(phases))
        upward = functional.pixel_shuffle(self.coarse_to_fine(coarse), 2)
        fine = self.fine_subnet(self.fine_head(planes) + upward)
        residual = functional.pixel_shuffle(self.tail(fine), self.fold_px // 2)
        linear = functional.pixel_shuffle(self.skip(phases), self.fold_px)
        return residual + linear

    def _sparse_planes(self, padded: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n letters h w"]:
        rows, columns = padded.shape[2] // self.fold_px, padded.shape[3] // self.fold_px
        return padded * self.letter_masks.to(padded.dtype).repeat(1, rows, columns)


def folded(model: DePhaseNet) -> DePhaseNet:
    """A copy of plain convolutions, which gives the same but for the rounding of floats.

    Args:
        model: of any configuration; it is not changed.
    """
    config = replace(model.config, fold_branches=False, white_first=False)
    return copy_folded(model, lambda: DePhaseNet(config, model.pattern))


class Zeros(nn.Module):
    """In the place of a part that is left out: zeros of so many channels, without memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """The size stays."""
        return x.new_zeros(1).expand(len(x), self.channels, *x.shape[2:])


class DistributedAttention(nn.Module):
    """A subnet of residual blocks; its output is the proportional sum of all their outputs."""

    def __init__(
        self,
        channels: int,
        blocks: int,
        gate_reduction: int,
        conv: Callable[[int], nn.Conv2d] = plain_conv,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(channels, conv) for _ in range(blocks)])
        self.gates = nn.ModuleList(
            [AttentionGate(channels, gate_reduction, share=1.0 / blocks) for _ in range(blocks)]
        )
        self._advance = _advance

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Channels and size stay."""
        compiled = self._advance is not _advance
        # What is compiled changes nothing in place, and would be compiled anew for a sum that is x.
        total = x.clone() if compiled else x
        for number, (block, gate) in enumerate(zip(self.blocks, self.gates, strict=True)):
            in_place = number > 0 and not compiled
            x, total = self._advance(block, gate, x, total, in_place)
        return total

    def compile_repeated(self) -> None:
        """Compile what is repeated, once for all blocks of one shape."""
        self._advance = torch.compile(_advance, dynamic=False)


def _advance(
    block: nn.Module, gate: nn.Module, x: Tensor, total: Tensor, in_place: bool
) -> tuple[Tensor, Tensor]:
    """The next block's output, and the sum with its share."""
    x = block(x)
    # In one pass over the memory: what is not a convolution waits for memory.
    add_product = torch.Tensor.addcmul_ if in_place else torch.addcmul
    return x, add_product(total, x, gate(x))


class LongSkip(nn.Module):
    """A subnet of residual blocks without attention; its output is x0 + xb."""

    def __init__(self, channels: int, blocks: int, conv: Callable[[int], nn.Conv2d]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(channels, conv) for _ in range(blocks)])

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Channels and size stay."""
        first = x
        for block in self.blocks:
            x = block(x)
        return first + x


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))), both 3x3."""

    def __init__(self, channels: int, conv: Callable[[int], nn.Conv2d]) -> None:
        super().__init__()
        self.conv1 = conv(channels)
        self.conv2 = conv(channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Channels and size stay."""
        return self.conv2(functional.relu_(self.conv1(x))).add_(x)


class AttentionGate(nn.Module):
    """sigmoid(1x1(ReLU(1x1(x)))): how much of x, at each pixel and channel, goes to the sum."""

    def __init__(self, channels: int, reduction: int, share: float) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, max(channels // reduction, 1), 1)
        self.excite = nn.Conv2d(max(channels // reduction, 1), channels, 1)
        nn.init.zeros_(self.excite.weight)
        # Every gate begins open by `share`, so that the shares of a subnet begin with a sum of 1.
        share = min(share, 0.5)
        nn.init.constant_(self.excite.bias, math.log(share / (1.0 - share)))  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Channels and size stay."""
        return self.excite(functional.relu_(self.squeeze(x))).sigmoid_()


def _fold(pattern: CFAPattern) -> int:
    period = math.lcm(*pattern.period)
    fold = period * math.ceil(4 / period)
    if fold % 2:
        fold *= 2
    if fold > 16:
        raise ModelError(
            f"DePhaseNet folds a CFA of at most 16x16 px, {pattern} needs {fold}x{fold}: "
            "choose a CFA with a shorter period"
        )
    return fold


def _subnet(
    config: DePhaseNetConfig, channels: int, blocks: int, conv: Callable[[int], nn.Conv2d]
) -> nn.Module:
    if config.attention:
        return DistributedAttention(channels, blocks, config.gate_reduction, conv)
    return LongSkip(channels, blocks, conv)


def _tail(config: DePhaseNetConfig, pattern: CFAPattern, fold_px: int) -> nn.Conv2d:
    if not config.white_first:
        return nn.Conv2d(config.fine_channels, 3 * fold_px**2, 3, padding=1)
    if "W" not in pattern.letters:
        raise ModelError(
            f"expected a CFA with white pixels for white_first, {pattern} has none: "
            "choose another CFA, or leave white_first out"
        )
    return WhiteFirstConv(config.fine_channels, fold_px)


def _init_as_residual(net: DePhaseNet) -> None:
    """Begin as the linear skip alone: each block and the tail begin near zero."""
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            nn.init.kaiming_normal_(module.conv1.weight, nonlinearity="relu")
            nn.init.zeros_(module.conv1.bias)  # pyright: ignore[reportArgumentType]
            with torch.no_grad():
                module.conv2.weight.mul_(0.1)
    with torch.no_grad():
        # Without the skip, there is nothing that the tail's output is a residual of.
        net.tail.weight.mul_(0.1 if net.config.skip else 1.0)
