from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from training_kit import tiny_net

from quantisp.errors import SettingError
from quantisp.training.precision import autocast_context, keep_in_float32, resolve_precision

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")


@contextmanager
def output_types(net: nn.Module) -> Iterator[dict[str, torch.dtype]]:
    """The dtype of every convolution's output, filled in as the network runs."""
    seen: dict[str, torch.dtype] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):

            def note(_layer: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                seen[name] = output.dtype

            hooks.append(module.register_forward_hook(note))
    yield seen
    for hook in hooks:
        hook.remove()


def hooks_of(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_the_skip_alone_stays_in_float32() -> None:
    net = tiny_net()
    with (
        keep_in_float32(net, CPU),
        output_types(net) as seen,
        autocast_context("bfloat16", CPU),
    ):
        net(torch.rand(1, 1, 16, 16))
        assert torch.is_autocast_enabled("cpu")
    assert seen.pop("skip") == torch.float32
    assert set(seen.values()) == {torch.bfloat16}
    assert len(seen) > 5


def test_without_it_the_skip_would_be_in_bfloat16() -> None:
    net = tiny_net()
    with output_types(net) as seen, autocast_context("bfloat16", CPU):
        net(torch.rand(1, 1, 16, 16))
    assert seen["skip"] == torch.bfloat16


def test_the_skip_is_exact_under_autocast() -> None:
    net = tiny_net().requires_grad_(False)
    mosaic = torch.rand(1, 1, 32, 32)
    found: list[Tensor] = []
    hook = net.skip.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
    net(mosaic)
    with keep_in_float32(net, CPU), autocast_context("bfloat16", CPU):
        net(mosaic)
    hook.remove()
    assert torch.equal(found[0], found[1])


def test_hooks_are_removed() -> None:
    net = tiny_net()
    with keep_in_float32(net, CPU):
        assert hooks_of(net) == 2
    assert hooks_of(net) == 0


def test_an_exception_leaves_neither_hooks_nor_another_autocast_behind() -> None:
    net = tiny_net()
    with autocast_context("bfloat16", CPU):
        with pytest.raises(RuntimeError), keep_in_float32(net, CPU):
            net.skip(torch.rand(1, 5, 16, 16))
        assert torch.is_autocast_enabled("cpu")
        assert hooks_of(net) == 0
    assert not torch.is_autocast_enabled("cpu")


def test_a_network_without_such_layers_is_left_alone() -> None:
    net = nn.Conv2d(1, 3, 3)
    with keep_in_float32(net, CPU):
        assert hooks_of(net) == 0


def test_no_other_precision() -> None:
    with pytest.raises(SettingError, match="auto, float32, bfloat16, found 'float16'"):
        resolve_precision("float16", CPU)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_asks_the_processor(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("float32", CPU) == "float32"
    assert resolve_precision("bfloat16", CPU) == "bfloat16"
