from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.inference import Interface, ReceptiveField, receptive_field
from quantisp.models import DePhaseNet, DePhaseNetConfig

pytestmark = pytest.mark.unit
KODAK_CFA = CFAPattern.named("rgbw-kodak")
CONFIG = DePhaseNetConfig(fine_channels=8, fine_blocks=2, coarse_channels=8, coarse_blocks=1)


def reach(net: nn.Module, pattern: CFAPattern = KODAK_CFA) -> tuple[int, int, int, int] | None:
    """Above, below, left, right."""
    field = receptive_field(net, Interface.of_mosaic(pattern))
    if field is None:
        return None
    return field.above_px, field.below_px, field.left_px, field.right_px


def conv(kernel: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, padding_mode="zeros", **options)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (conv(1), (0, 0, 0, 0)),
        (conv(3, padding=1), (1, 1, 1, 1)),
        (nn.Sequential(conv(3, padding=1), nn.ReLU(), conv(3, padding=1)), (2, 2, 2, 2)),
        (conv(3, padding=3, dilation=3), (3, 3, 3, 3)),
        (nn.Conv2d(1, 1, (1, 5), padding=(0, 2)), (0, 0, 2, 2)),
        (nn.Sequential(nn.ZeroPad2d((4, 0, 2, 0)), nn.Conv2d(1, 1, (3, 5))), (2, 0, 4, 0)),
        (nn.MaxPool2d(3, stride=1, padding=1), (1, 1, 1, 1)),
        # A pixel depends on its own 2x2 cell, in which it may be first or last.
        (nn.Sequential(conv(2, stride=2), nn.ConvTranspose2d(1, 1, 2, stride=2)), (1, 1, 1, 1)),
        # Cells of 4x4 and their neighbours: 4 px more.
        (
            nn.Sequential(
                nn.PixelUnshuffle(4), nn.Conv2d(16, 16, 3, padding=1), nn.PixelShuffle(4)
            ),
            (7, 7, 7, 7),
        ),
        (
            nn.Sequential(nn.PixelUnshuffle(16), nn.Conv2d(256, 256, 1), nn.PixelShuffle(16)),
            (15, 15, 15, 15),
        ),
    ],
)
def test_of_known_networks(net: nn.Module, expected: tuple[int, int, int, int]) -> None:
    assert reach(net) == expected


def test_the_weights_do_not_matter() -> None:
    net = conv(5, padding=2)
    nn.init.zeros_(net.weight)
    assert reach(net) == (2, 2, 2, 2)


def test_extent_counts_the_pixel_itself() -> None:
    field = ReceptiveField(above_px=1, below_px=2, left_px=3, right_px=5, stride_px=16)
    assert (field.height_px, field.width_px) == (4, 9)


class GloballyGated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))


def test_global_pooling_has_no_bound() -> None:
    assert reach(GloballyGated()) is None


def test_strips_are_lengthened_up_to_a_limit() -> None:
    def doubling(layers: int) -> nn.Module:
        """Dilations of 1, 2, 4 and so on: dense, with a reach of 2^layers - 1 px to both sides."""
        steps = [2**layer for layer in range(layers)]
        return nn.Sequential(
            *(nn.Conv2d(1, 1, (1, 3), padding=(0, s), dilation=(1, s)) for s in steps)
        )

    assert reach(doubling(6)) == (0, 0, 63, 63)
    assert reach(doubling(10)) == (0, 0, 1023, 1023)
    assert reach(doubling(11)) is None


@pytest.mark.parametrize(("name", "stride"), [("rgbw-kodak", 16), ("bayer", 16), ("x-trans", 48)])
def test_a_picture_may_be_shifted_by_whole_folds_and_periods(name: str, stride: int) -> None:
    field = receptive_field(conv(3, padding=1), Interface.of_mosaic(CFAPattern.named(name)))
    assert field is not None
    assert field.stride_px == stride


def analytic(net: DePhaseNet) -> tuple[int, int]:
    """Before and after, in one axis, from the dataflow: cells of a fold, and of half a fold."""
    fold = net.fold_px
    half = fold // 2
    # 3x3 convolutions: a block has two, the head and the tail are one each.
    fine_cells = 2 * net.config.fine_blocks + 1
    coarse_cells = 2 * net.config.coarse_blocks + 1
    before, after = [], []
    for x in range(fold):
        # The heads widen the fine level's own input by one cell more.
        own = (fine_cells + 1) * half
        first = [(x // half) * half - own, (x // fold - 2) * fold]
        last = [(x // half + 1) * half - 1 + own, (x // fold + 3) * fold - 1]
        first.append((((x // half - fine_cells) // 2) - coarse_cells) * fold)
        last.append((((x // half + fine_cells) // 2) + coarse_cells + 1) * fold - 1)
        before.append(x - min(first))
        after.append(max(last) - x)
    return max(before), max(after)


@pytest.mark.parametrize(
    ("name", "fine", "coarse"),
    [
        ("rgbw-kodak", 1, 1),
        ("rgbw-kodak", 3, 1),
        ("rgbw-kodak", 1, 2),
        ("bayer", 2, 1),
        ("x-trans", 1, 1),
    ],
)
def test_of_dephasenet(name: str, fine: int, coarse: int) -> None:
    config = DePhaseNetConfig(
        fine_channels=4, fine_blocks=fine, coarse_channels=4, coarse_blocks=coarse
    )
    net = DePhaseNet(config, CFAPattern.named(name))
    before, after = analytic(net)
    assert reach(net, net.pattern) == (before, after, before, after)


@pytest.fixture(scope="module")
def net() -> DePhaseNet:
    """Random everywhere: fresh gates are constant, and would hide what passes through them."""
    torch.manual_seed(3)
    net = DePhaseNet(CONFIG, KODAK_CFA).double().eval().requires_grad_(False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def changed_outputs(net: nn.Module, dy: int, dx: int) -> set[tuple[int, int]]:
    """Outputs that change with an input, for outputs of all phases, at the given distance.

    Returns:
        The phases (y, x) at which the output ``dy`` below and ``dx`` right of the input changes.
    """
    size, centre = 160, 80
    base = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(1)).double()
    before = net(base)
    found: set[tuple[int, int]] = set()
    for phase in range(4):
        y = x = centre + phase
        moved = base.clone()
        moved[:, :, y, x] += 0.5
        if not torch.equal(net(moved)[:, :, y + dy, x + dx], before[:, :, y + dy, x + dx]):
            found.add(((y + dy) % 4, (x + dx) % 4))
    return found


def test_an_input_outside_the_field_changes_nothing_and_one_inside_does(net: DePhaseNet) -> None:
    field = receptive_field(copy.deepcopy(net).float(), Interface.of_mosaic(KODAK_CFA))
    assert field is not None
    # An output lies below and right of what is above and left of it.
    for edge, axis, sign in (
        (field.above_px, 0, 1),
        (field.below_px, 0, -1),
        (field.left_px, 1, 1),
        (field.right_px, 1, -1),
    ):
        inside = (sign * edge, 0) if axis == 0 else (0, sign * edge)
        outside = (sign * (edge + 1), 0) if axis == 0 else (0, sign * (edge + 1))
        assert changed_outputs(net, *inside)
        assert not changed_outputs(net, *outside)


def test_the_network_is_not_changed(net: DePhaseNet) -> None:
    single = copy.deepcopy(net).float().train()
    receptive_field(single, Interface.of_mosaic(KODAK_CFA))
    assert single.training
    assert next(single.parameters()).dtype == torch.float32
