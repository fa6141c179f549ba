"""Tiles are the whole picture, to the last bit on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from network_kit import random_net
from torch import Tensor, nn

from quantisp.api import find_model
from quantisp.cfa import CFAPattern
from quantisp.errors import SettingError
from quantisp.inference import (
    Interface,
    ReceptiveField,
    Window,
    prepare,
    receptive_field,
    restore,
    restore_tiled,
    tile_windows,
)

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
SIZE = (147, 171)


@pytest.fixture(scope="module")
def given() -> Tensor:
    return torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(2))


def tiled(model: nn.Module, given: Tensor, field: ReceptiveField | None, tile_px: int) -> Tensor:
    def read(window: Window) -> Tensor:
        rows = slice(window.top, window.top + window.height)
        return given[:, :, rows, window.left : window.left + window.width]

    size = (given.shape[2], given.shape[3])
    joined = torch.full((1, 3, *given.shape[2:]), torch.nan)
    for place, part in restore_tiled(model, read, size, field=field, tile_px=tile_px):
        rows = slice(place.top, place.top + place.height)
        joined[:, :, rows, place.left : place.left + place.width] = part
    return joined


def field_of(model: nn.Module, pattern: CFAPattern) -> ReceptiveField:
    field = receptive_field(model, Interface.of_mosaic(pattern))
    assert field is not None
    return field


@pytest.mark.parametrize("name", ["rgbw-kodak", "bayer", "x-trans"])
@pytest.mark.parametrize("tile_px", [48, 61])
def test_tiles_of_a_network_are_the_whole(name: str, tile_px: int, given: Tensor):
    net = prepare(random_net(name), CPU)
    field = field_of(net, CFAPattern.named(name))
    # oneDNN chooses among kernels by size where there are as few channels as here.
    torch.testing.assert_close(
        tiled(net, given, field, tile_px), restore(net, given), rtol=0.0, atol=5e-6
    )


def test_tiles_of_the_packaged_network_are_the_whole_to_the_last_bit():
    net = prepare(find_model("dephasenet-lite").model, CPU)
    given = torch.rand(1, 1, 64, 400, generator=torch.Generator().manual_seed(4))
    # As `quantisp info` finds it, which takes seconds.
    field = ReceptiveField(above_px=121, below_px=121, left_px=121, right_px=121, stride_px=16)
    assert torch.equal(tiled(net, given, field, 128), restore(net, given))


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("bilinear", "rgbw-kodak"),
        ("residual", "rgbw-kodak"),
        ("linear", "rgbw-kodak"),
        ("linear", "bayer"),
        ("malvar", "bayer"),
        ("menon", "bayer"),
    ],
)
def test_tiles_of_a_method_are_the_whole(method: str, name: str, given: Tensor):
    pattern = CFAPattern.named(name)
    model = prepare(find_model(method, pattern=pattern).model, CPU)
    field = field_of(model, pattern)
    assert field.height_px < 100
    assert torch.equal(tiled(model, given, field, 53), restore(model, given))


@pytest.mark.parametrize("edge", ["above_px", "below_px", "left_px", "right_px"])
def test_without_their_overlap_they_are_not(edge: str, given: Tensor):
    net = prepare(random_net("rgbw-kodak"), CPU)
    short = replace(field_of(net, CFAPattern.named("rgbw-kodak")), **{edge: 0})
    assert not torch.equal(tiled(net, given, short, 48), restore(net, given))


def test_an_unbounded_network_sees_the_whole(given: Tensor):
    net = prepare(random_net("bayer"), CPU)
    assert torch.equal(tiled(net, given, None, 16), restore(net, given))


def test_tiles_cover_a_picture_once():
    seen = torch.zeros(SIZE)
    for window in tile_windows(*SIZE, 50):
        rows = slice(window.top, window.top + window.height)
        seen[rows, window.left : window.left + window.width] += 1
    assert bool((seen == 1).all())


def test_tiles_have_pixels(given: Tensor):
    with pytest.raises(SettingError, match="correct --tile"):
        tiled(random_net("bayer"), given, None, 0)
