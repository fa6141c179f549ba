from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from network_kit import random_net
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.errors import SettingError
from quantisp.inference import (
    Interface,
    ReceptiveField,
    Window,
    find_device,
    prepare,
    receptive_field,
    restore,
    restore_window,
)

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
# The whole height and width are no whole periods of any CFA here.
HEIGHT, WIDTH = 203, 317


@pytest.fixture(scope="module")
def mosaic() -> Tensor:
    return torch.rand(1, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))


WINDOWS = [
    Window(top=0, left=0, height=128, width=128),
    Window(top=0, left=WIDTH - 64, height=64, width=64),
    Window(top=HEIGHT - 1, left=0, height=1, width=1),
    Window(top=HEIGHT - 40, left=WIDTH - 30, height=40, width=30),
    Window(top=0, left=151, height=3, width=7),
    Window(top=101, left=0, height=5, width=9),
    Window(top=HEIGHT - 7, left=133, height=7, width=50),
    Window(top=71, left=WIDTH - 11, height=64, width=11),
    Window(top=83, left=129, height=1, width=1),
    Window(top=61, left=97, height=33, width=65),
    Window(top=96, left=160, height=16, width=16),
    Window(top=0, left=0, height=HEIGHT, width=WIDTH),
]


def cut(image: Tensor, window: Window) -> Tensor:
    rows = slice(window.top, window.top + window.height)
    return image[:, :, rows, window.left : window.left + window.width]


@pytest.mark.parametrize("name", ["rgbw-kodak", "bayer", "x-trans"])
def test_a_window_equals_the_whole_picture(name: str, mosaic: Tensor) -> None:
    net = prepare(random_net(name), CPU)
    field = receptive_field(net, Interface.of_mosaic(CFAPattern.named(name)))
    assert field is not None
    whole = restore(net, mosaic)
    for window in WINDOWS:
        part = restore_window(net, mosaic, window, field=field)
        assert part.shape == (1, 3, window.height, window.width)
        # Values are up to about 3; the order of the sums in a convolution may differ.
        torch.testing.assert_close(part, cut(whole, window), rtol=0.0, atol=2e-6)


def test_a_window_reads_no_more_than_it_needs(mosaic: Tensor) -> None:
    net = prepare(random_net("rgbw-kodak"), CPU)
    field = receptive_field(net, Interface.of_mosaic(CFAPattern.named("rgbw-kodak")))
    sizes: list[int] = []
    hook = net.register_forward_pre_hook(lambda _net, inputs: sizes.append(inputs[0].numel()))
    restore_window(net, mosaic, Window(top=96, left=160, height=16, width=16), field=field)
    hook.remove()
    assert field is not None
    most = 16 + max(field.height_px, field.width_px) + field.stride_px
    assert sizes[0] <= most**2 < mosaic.numel() / 4


def test_an_unbounded_network_sees_the_whole_picture(mosaic: Tensor) -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x - x.mean()).expand(-1, 3, -1, -1)

    net = prepare(Centred(), CPU)
    assert receptive_field(net, Interface.of_mosaic(CFAPattern.named("bayer"))) is None
    part = restore_window(net, mosaic, WINDOWS[9], field=None)
    assert torch.equal(part, cut(restore(net, mosaic), WINDOWS[9]))


@pytest.mark.parametrize("edge", ["above_px", "below_px", "left_px", "right_px"])
def test_with_a_field_that_is_too_small_a_window_differs(edge: str, mosaic: Tensor) -> None:
    net = prepare(random_net("rgbw-kodak"), CPU)
    field = receptive_field(net, Interface.of_mosaic(CFAPattern.named("rgbw-kodak")))
    assert field is not None
    short: ReceptiveField = replace(field, **{edge: 0})
    whole, window = restore(net, mosaic), Window(top=96, left=160, height=16, width=16)
    part = restore_window(net, mosaic, window, field=short)
    assert float((part - cut(whole, window)).abs().max()) > 1e-4


def test_in_another_phase_a_window_differs(mosaic: Tensor) -> None:
    net = prepare(random_net("rgbw-kodak"), CPU)
    field = receptive_field(net, Interface.of_mosaic(CFAPattern.named("rgbw-kodak")))
    assert field is not None
    window = Window(top=96, left=162, height=16, width=16)
    odd = replace(field, stride_px=1)
    assert (window.left - field.left_px) % 4
    part = restore_window(net, mosaic, window, field=odd)
    assert float((part - cut(restore(net, mosaic), window)).abs().max()) > 1e-2


def test_restore_gives_plain_tensors(mosaic: Tensor) -> None:
    restored = restore(prepare(random_net("bayer").requires_grad_(True), CPU), mosaic)
    assert restored.is_contiguous()
    assert not restored.requires_grad
    assert restored.shape == (1, 3, HEIGHT, WIDTH)


@pytest.fixture
def tf32_on() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.usefixtures("tf32_on")
def test_prepare_switches_tf32_off() -> None:
    net = prepare(random_net("bayer").train(), CPU)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not net.training
    assert net.get_parameter("tail.weight").is_contiguous(memory_format=torch.channels_last)


def test_devices_that_are_there() -> None:
    assert find_device("cpu") == CPU
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:99", "cpu:-2", "meta", "CPU "])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(SettingError, match=r"cannot be used here .* pass --device cpu"):
        find_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(SettingError, match="'cuda' cannot be used here"):
        find_device("cuda")


def test_autocast_around_it_has_no_effect(mosaic: Tensor) -> None:
    net = prepare(random_net("bayer"), CPU)
    plain = restore(net, mosaic)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(restore(net, mosaic), plain)
        # Its twin: without the guard there is an effect.
        assert not torch.equal(net(mosaic), plain)


def test_a_batch_is_its_pictures_up_to_float32_rounding() -> None:
    """Other batch sizes may sum in another order; values here are below 4."""
    net = random_net("rgbw-kodak").eval()
    batch = torch.rand(3, 1, 64, 48, generator=torch.Generator().manual_seed(4))
    single = torch.cat([net(one[None]) for one in batch])
    assert float((net(batch) - single).abs().max()) < 2e-5
