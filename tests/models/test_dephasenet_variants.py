"""The configurations that leave a part of DePhaseNet out, or train it in another form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern, masks, mosaic, pad_to_periods
from quantisp.errors import ModelError
from quantisp.inference import network_cost
from quantisp.models import DePhaseNet, DePhaseNetConfig, load_model_file
from quantisp.models.dephasenet import folded

SMALL = DePhaseNetConfig(fine_channels=8, fine_blocks=2, coarse_channels=8, coarse_blocks=2)
KODAK = CFAPattern.named("rgbw-kodak")
REACH_PX = 4 * (1 + 4) + 2 * (4 + 1) + 4

VARIANTS = {
    "both": SMALL,
    "coarse": replace(SMALL, phases="coarse"),
    "fine": replace(SMALL, phases="fine"),
    "no attention": replace(SMALL, attention=False),
    "no skip": replace(SMALL, skip=False),
    "branches": replace(SMALL, fold_branches=True),
    "white first": replace(SMALL, white_first=True),
    "all but": replace(
        SMALL, phases="fine", attention=False, skip=False, fold_branches=True, white_first=True
    ),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
foldable = pytest.mark.parametrize("name", ["branches", "white first", "all but"])


def awake(net: DePhaseNet) -> DePhaseNet:
    """Every weight at work: a fresh network begins as its linear skip alone."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * max(parameter[0].numel(), 1) ** -0.5)
    return net.eval().requires_grad_(False)


def samples(height: int, width: int) -> Tensor:
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(height + width))


def by_the_drawing(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """dephasenet-lite on whole folds, from its weights and the drawing in its docstring."""

    def conv(name: str, x: Tensor, padding: int = 0) -> Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 1, padding)

    def subnet(name: str, x: Tensor, blocks: int) -> Tensor:
        total = x
        for b in range(blocks):
            hidden = conv(f"{name}.blocks.{b}.conv1", x, 1).relu()
            x = conv(f"{name}.blocks.{b}.conv2", hidden, 1) + x
            inside = conv(f"{name}.gates.{b}.squeeze", x).relu()
            total = torch.addcmul(total, x, conv(f"{name}.gates.{b}.excite", inside).sigmoid())
        return total

    phases = functional.pixel_unshuffle(x, 4)
    planes = functional.pixel_unshuffle(x * masks(KODAK, *x.shape[2:]).float(), 2)
    coarse = subnet("coarse_subnet", conv("coarse_head", phases, 1), 10)
    upward = functional.pixel_shuffle(conv("coarse_to_fine", coarse), 2)
    fine = subnet("fine_subnet", conv("fine_head", planes, 1) + upward, 8)
    residual = functional.pixel_shuffle(conv("tail", fine, 1), 2)
    return residual + functional.pixel_shuffle(conv("skip", phases, 2), 4)


@pytest.mark.reference
@torch.inference_mode()
def test_the_packaged_network_is_the_one_that_is_drawn_to_the_last_bit() -> None:
    net = load_model_file("dephasenet-lite").model
    for height, width in [(48, 64), (37, 50)]:
        x = samples(height, width)
        padded = pad_to_periods(x, multiple=4, period=KODAK.period)
        expected = by_the_drawing(dict(net.state_dict()), padded)[:, :, :height, :width]
        assert torch.equal(net(x), expected)


@pytest.mark.unit
@every_variant
def test_learns_in_every_parameter(config: DePhaseNetConfig) -> None:
    torch.manual_seed(0)
    net = awake(DePhaseNet(config, KODAK)).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    rgb = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        return functional.mse_loss(net(mosaic(rgb, KODAK)), rgb)

    before = loss()
    before.backward()
    silent = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert silent == []
    optimizer.step()
    after = float(loss().detach())
    assert math.isfinite(after)
    assert after < float(before.detach())


@pytest.mark.unit
@every_variant
def test_a_fresh_one_gives_finite_rgb_of_any_size(config: DePhaseNetConfig) -> None:
    torch.manual_seed(0)
    net = DePhaseNet(config, KODAK).eval().requires_grad_(False)
    rgb = net(samples(21, 30).expand(2, 1, 21, 30))
    assert rgb.shape == (2, 3, 21, 30)
    assert bool(torch.isfinite(rgb).all())
    assert float(rgb.std()) > 1e-3


@pytest.mark.unit
@every_variant
def test_a_crop_with_enough_margin_equals_the_whole(config: DePhaseNetConfig) -> None:
    net, whole = awake(DePhaseNet(config, KODAK)), samples(160, 168)
    outer = (..., slice(16, 116), slice(20, 120))
    inner = (..., slice(REACH_PX, 100 - REACH_PX), slice(REACH_PX, 100 - REACH_PX))
    expected = net(whole)[outer][inner]
    assert float((net(whole[outer])[inner] - expected).abs().max() / expected.std()) < 1e-5


@pytest.mark.unit
@foldable
def test_folded_gives_the_same(name: str) -> None:
    net = awake(DePhaseNet(VARIANTS[name], KODAK))
    plain, x = folded(net), samples(40, 44)
    expected = net(x)
    assert float((plain(x) - expected).abs().max() / expected.std()) < 1e-5
    assert not plain.training
    assert {type(layer) for layer in plain.modules() if isinstance(layer, nn.Conv2d)} == {nn.Conv2d}


@pytest.mark.unit
@pytest.mark.parametrize("name", ["coarse_subnet.blocks.0.conv1.point.weight", "tail.bias"])
def test_folded_wrongly_would_be_noticed(name: str) -> None:
    net = awake(DePhaseNet(replace(SMALL, fold_branches=True, white_first=True), KODAK))
    plain, x = folded(net), samples(40, 44)
    net.get_parameter(name).mul_(1.01)
    assert float((plain(x) - net(x)).abs().max() / net(x).std()) > 1e-4


@pytest.mark.unit
def test_folding_a_plain_network_copies_it() -> None:
    net = awake(DePhaseNet(SMALL, KODAK))
    copy = folded(net)
    assert torch.equal(copy(samples(24, 24)), net(samples(24, 24)))
    copy.tail.weight.zero_()
    assert float(net.tail.weight.abs().sum()) > 0.0


@pytest.mark.unit
def test_branches_are_those_of_the_drawing() -> None:
    """3x3(x) + 1x1(x) + gain·x, run one by one."""
    net = awake(DePhaseNet(replace(SMALL, fold_branches=True), KODAK))
    conv = net.get_submodule("fine_subnet.blocks.0.conv1")
    assert isinstance(conv, nn.Conv2d)
    x = torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    square = functional.conv2d(x, conv.weight, conv.bias, padding=1)
    point = functional.conv2d(x, conv.get_parameter("point.weight"))
    gain = conv.get_parameter("gain")[:, None, None]
    assert torch.allclose(conv(x), square + point + gain * x, atol=1e-5)


@pytest.mark.unit
@pytest.mark.parametrize("part", ["fold_branches", "attention"])
def test_a_part_that_begins_idle_does_not_change_the_beginning(part: str) -> None:
    """With branches, a network begins as the very one without; attention does change it."""
    torch.manual_seed(0)
    plain = DePhaseNet(SMALL, KODAK).eval().requires_grad_(False)
    torch.manual_seed(0)
    other = DePhaseNet(replace(SMALL, **{part: part == "fold_branches"}), KODAK)
    other = other.eval().requires_grad_(False)
    same = torch.equal(plain(samples(24, 24)), other(samples(24, 24)))
    assert same == (part == "fold_branches")


@pytest.mark.unit
def test_white_comes_first() -> None:
    """Where only the first map of the tail is not zero, it is W: R, G and B alike."""
    net = DePhaseNet(replace(SMALL, white_first=True, skip=False), KODAK)
    net = net.eval().requires_grad_(False)
    net.tail.weight[4:] = 0.0
    net.tail.bias[4:] = 0.0  # pyright: ignore[reportOptionalSubscript]
    red, green, blue = net(samples(24, 24))[0]
    assert float(red.std()) > 0.0
    assert torch.allclose(red, green, atol=1e-6)
    assert torch.allclose(red, blue, atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("map_number", [1, 2])
def test_the_colour_differences_leave_white_alone(map_number: int) -> None:
    net = DePhaseNet(replace(SMALL, white_first=True, skip=False), KODAK)
    net = net.eval().requires_grad_(False)
    others = [row for row in range(12) if row // 4 != map_number]
    net.tail.weight[others] = 0.0
    net.tail.bias[others] = 0.0  # pyright: ignore[reportOptionalSubscript]
    rgb = net(samples(24, 24))
    assert float(rgb.std()) > 0.0
    assert float(rgb.mean(dim=1).abs().max()) < 1e-6


@pytest.mark.unit
def test_white_first_needs_white() -> None:
    with pytest.raises(ModelError, match="expected a CFA with white pixels"):
        DePhaseNet(replace(SMALL, white_first=True), CFAPattern.named("bayer"))


@pytest.mark.unit
def test_unknown_phases_are_refused() -> None:
    with pytest.raises(ModelError, match="expected phases of both, coarse, fine, found 'odd'"):
        replace(SMALL, phases="odd")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "absent"),
    [("coarse", "fine_head"), ("fine", "coarse_"), ("no attention", "gates"), ("no skip", "skip")],
)
def test_what_is_left_out_has_no_weights_and_costs_nothing(name: str, absent: str) -> None:
    net, whole = DePhaseNet(VARIANTS[name], KODAK), DePhaseNet(SMALL, KODAK)
    left = [key for key in whole.state_dict() if absent in key]
    assert left
    assert [key for key in whole.state_dict() if key not in left] == list(net.state_dict())
    part = sum(layer.macs_per_px for layer in network_cost(whole).layers if absent in layer.name)
    saved = network_cost(whole).macs_per_px - network_cost(net).macs_per_px
    assert saved == pytest.approx(part)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["branches", "white first"])
def test_another_form_costs_the_same(name: str) -> None:
    other, plain = (network_cost(DePhaseNet(VARIANTS[key], KODAK)) for key in (name, "both"))
    # But for combining the kernels, once for a whole picture.
    assert other.macs_per_px == pytest.approx(plain.macs_per_px, rel=1e-4)
