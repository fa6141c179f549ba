from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from quantisp.cfa import CFAPattern, mosaic, named_patterns
from quantisp.errors import ModelError, PatternError
from quantisp.models import DePhaseNet, DePhaseNetConfig, build_preset

SMALL = DePhaseNetConfig(fine_channels=8, fine_blocks=2, coarse_channels=8, coarse_blocks=2)
KODAK = CFAPattern.named("rgbw-kodak")
# How far SMALL looks, in px: coarse_head 1, its blocks 2 x 2 and the skip's 2 cells are 4 px each;
# the fine blocks 2 x 2 and the tail 1 are 2 px each. One fold more for the cell itself.
REACH_PX = 4 * (1 + 4) + 2 * (4 + 1) + 4


def awake(net: nn.Module) -> nn.Module:
    """Every weight at work: a fresh network begins as its linear skip alone."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in net.parameters():
            fan_in = max(parameter[0].numel(), 1)
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * fan_in**-0.5)
    return net.eval().requires_grad_(False)


def small(pattern: CFAPattern = KODAK) -> nn.Module:
    return awake(DePhaseNet(SMALL, pattern))


def samples(height: int, width: int) -> Tensor:
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.mark.property
@pytest.mark.parametrize("name", ["rgbw-kodak", "bayer", "x-trans"])
def test_any_size_of_a_period_or_more_comes_back(name: str) -> None:
    pattern = CFAPattern.named(name)
    net = small(pattern)

    @settings(max_examples=15)
    @given(st.integers(0, 14), st.integers(0, 14), st.integers(1, 2))
    def law(extra_rows: int, extra_columns: int, batch: int) -> None:
        height, width = pattern.period[0] + extra_rows, pattern.period[1] + extra_columns
        rgb = net(samples(height, width).expand(batch, 1, height, width))
        assert rgb.shape == (batch, 3, height, width)
        assert bool(torch.isfinite(rgb).all())

    law()


@pytest.mark.unit
@pytest.mark.parametrize("size", [(3, 8), (8, 3)])
def test_less_than_a_period_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(PatternError, match="at least one period"):
        small()(samples(*size))


@pytest.mark.unit
@pytest.mark.parametrize("pattern", named_patterns(), ids=str)
def test_works_for_every_named_cfa(pattern: CFAPattern) -> None:
    net = DePhaseNet(SMALL, pattern)
    assert net.fold_px % 2 == 0
    assert all(net.fold_px % period == 0 for period in pattern.period)
    assert awake(net)(samples(26, 31)).shape == (1, 3, 26, 31)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("tile", "fold_px"),
    [
        (("W",), 4),
        (("RG", "GB"), 4),
        (("RGB",), 6),
        (("RGBWG",), 10),
        (("RGBW", "GRWB", "BWRG"), 12),
        (("RGBWRGBW",) * 16, 16),
    ],
)
def test_the_fold_is_an_even_multiple_of_the_period(tile: tuple[str, ...], fold_px: int) -> None:
    net = DePhaseNet(SMALL, CFAPattern(tile))
    assert net.fold_px == fold_px
    assert awake(net)(samples(17, 19)).shape == (1, 3, 17, 19)


@pytest.mark.unit
@pytest.mark.parametrize("tile", [("RGBWRGBWG",), ("RGBWG", "GRWBG", "BWRGG")])
def test_a_cfa_that_folds_too_large_is_refused(tile: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="at most 16x16 px") as caught:
        DePhaseNet(SMALL, CFAPattern(tile))
    assert "\n" not in str(caught.value)


def crop_error(top: int, left: int, size: int, margin: int) -> float:
    """The largest difference, relative to the output, of a crop's inside to the whole picture's."""
    net, whole = small(), samples(160, 168)
    outer = (..., slice(top, top + size), slice(left, left + size))
    inner = (..., slice(margin, size - margin), slice(margin, size - margin))
    expected = net(whole)[outer][inner]
    return float((net(whole[outer])[inner] - expected).abs().max() / expected.std())


@pytest.mark.unit
@pytest.mark.parametrize(("top", "left"), [(16, 20), (0, 0), (60, 68)])
def test_a_crop_with_enough_margin_equals_the_whole(top: int, left: int) -> None:
    assert crop_error(top, left, 100, REACH_PX) < 1e-5


@pytest.mark.unit
def test_a_crop_with_too_little_margin_is_noticed() -> None:
    assert crop_error(16, 20, 100, 8) > 1e-4


@pytest.mark.unit
def test_a_crop_out_of_phase_is_noticed() -> None:
    assert crop_error(17, 20, 100, REACH_PX) > 1e-2


@pytest.mark.unit
def test_the_reach_is_as_documented() -> None:
    """No pooling, no normalisation: one pixel moves its neighbourhood only."""
    net = small()
    base = samples(160, 160)
    touched = base.clone()
    touched[0, 0, 80, 80] += 10.0
    moved = (net(touched) - net(base)).abs().amax(dim=(0, 1)) > 0
    ys, xs = torch.nonzero(moved, as_tuple=True)
    assert int(ys.min()) >= 80 - REACH_PX
    assert int(ys.max()) <= 83 + REACH_PX
    assert int(xs.min()) >= 80 - REACH_PX
    assert int(xs.max()) <= 83 + REACH_PX


@pytest.mark.unit
def test_a_picture_of_a_batch_does_not_depend_on_the_others() -> None:
    net, pair = small(), torch.cat([samples(20, 24), 1.0 - samples(20, 24)])
    assert torch.allclose(net(pair)[1:], net(pair[1:]), atol=1e-5)


@pytest.mark.unit
def test_begins_as_a_linear_map() -> None:
    """The blocks begin small, so a fresh network is close to its linear skip."""
    torch.manual_seed(0)
    net = DePhaseNet(SMALL, KODAK).eval().requires_grad_(False)
    linear = nn.functional.pixel_shuffle(
        net.skip(nn.functional.pixel_unshuffle(samples(32, 32), 4)), 4
    )
    difference = (net(samples(32, 32)) - linear).std()
    assert float(difference) < 0.5 * float(linear.std())


@pytest.mark.unit
def test_every_parameter_learns() -> None:
    net = awake(DePhaseNet(SMALL, KODAK)).requires_grad_(True)
    net(mosaic(torch.rand(1, 3, 32, 32), KODAK)).square().mean().backward()
    silent = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert silent == []


@pytest.mark.golden
@pytest.mark.parametrize(
    ("preset", "least", "budget"), [("dephasenet-lite", 0.135, 0.15), ("dephasenet", 1.33, 1.9)]
)
def test_a_preset_keeps_its_budget(preset: str, least: float, budget: float) -> None:
    """DESIGN section 5, in millions of multiply-accumulate operations per pixel."""
    net = build_preset(preset, KODAK).to("meta")
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 1, 64, 64, device="meta"))
    mmac_per_px = counter.get_total_flops() / 2 / 64**2 / 1e6
    assert least < mmac_per_px <= budget


@pytest.mark.unit
def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ModelError, match="no preset is called 'resnet': choose one of"):
        build_preset("resnet", KODAK)
