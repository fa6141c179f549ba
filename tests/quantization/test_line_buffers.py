"""Line buffers: textbook values, another way to count them, and how far outputs reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from activation_kit import Chain, Everything, noise, tiny_dephasenet
from torch import nn
from torch.nn import functional

from quantisp.errors import ModelError
from quantisp.inference import Interface, receptive_field
from quantisp.quantization import capture
from quantisp.quantization.graph.extents import Axis, reach_px, stride_px
from quantisp.quantization.line_buffers import line_buffers


def kernels(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(module.weight.shape)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }


def buffers(network: nn.Module, row_bytes=None, size: int = 16):
    graph = capture(network.eval(), noise(1, 1, size, size))
    names = [node.name for node in graph.nodes if not node.moves]
    found = line_buffers(graph, kernels(network), row_bytes or dict.fromkeys(names, 1.0))
    return [found.rows[name] for name in names], found.latency_rows


class Skip(nn.Module):
    """A main branch of three 3x3 convolutions, and the input beside it."""

    def __init__(self, wide_skip: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 1, 3, padding=1),
        )
        self.beside = nn.Conv2d(1, 1, 1) if wide_skip else nn.Identity()

    def forward(self, x):
        return self.body(x) + self.beside(x)


class Folded(nn.Module):
    def forward(self, x):
        return functional.pixel_shuffle(self.conv(functional.pixel_unshuffle(x, 4)), 4)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 48, 3, padding=1)


@pytest.mark.unit
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (3, 2), (1, 1)])
def test_a_convolution_keeps_all_but_the_newest_of_its_rows(kernel, dilation):
    reach = dilation * (kernel - 1)
    conv = nn.Conv2d(1, 2, kernel, padding=reach // 2, dilation=dilation)
    rows, latency = buffers(conv)
    assert rows == [reach, 0]
    assert latency == reach // 2


@pytest.mark.unit
def test_a_chain_keeps_two_rows_for_each_convolution():
    chain = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)])
    assert buffers(chain) == ([2, 2, 2, 2, 0], 4)


@pytest.mark.unit
def test_a_skip_waits_for_its_main_branch():
    # Three rows late; two of them the first convolution keeps anyway.
    assert buffers(Skip()) == ([3, 2, 2, 0, 0], 3)
    # A branch that widens is computed late, so that its narrow input waits.
    graph = capture(Skip(wide_skip=True).eval(), noise(1, 1, 16, 16))
    names = [node.name for node in graph.nodes]
    wide = dict.fromkeys(names, 4.0) | {names[0]: 1.0}
    found = line_buffers(graph, kernels(Skip(wide_skip=True)), wide)
    assert found.rows[names[0]] == 3
    assert found.rows[graph.nodes[-2].name] == 0
    # The twin: where the input is the wide one, the output waits.
    narrow = dict.fromkeys(names, 1.0) | {names[0]: 4.0}
    found = line_buffers(graph, kernels(Skip(wide_skip=True)), narrow)
    assert found.rows[names[0]] == 2
    assert found.rows[graph.nodes[-2].name] == 3


@pytest.mark.unit
def test_a_fold_by_four_keeps_eleven_rows_of_px():
    # 3x3 on the fold looks at 12 rows; of the result 3 rows wait to leave one by one.
    rows, latency = buffers(Folded())
    assert rows[0] == 11
    assert rows[1] == 1
    assert latency == 7


@pytest.mark.unit
def test_strides_and_sizes():
    down = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    assert buffers(down)[0] == [2, 0]
    up = nn.ConvTranspose2d(1, 1, 2, stride=2)
    assert buffers(up)[0][0] == 0


@pytest.mark.reference
@pytest.mark.parametrize("make", [Skip, Folded, tiny_dephasenet, Chain])
def test_reach_is_what_a_nan_touches(make):
    network = make().eval()
    graph = capture(network, noise(1, 1, 32, 32))
    interface = Interface(period=(4, 4))
    found = receptive_field(network, interface)
    assert found is not None
    stride = math.lcm(16, stride_px(graph, kernels(network)))
    above, below = reach_px(Axis(graph=graph, kernels=kernels(network)), stride)
    left, right = reach_px(Axis(graph=graph, kernels=kernels(network), across=True), stride)
    assert (above, below) == (found.above_px, found.below_px)
    assert (left, right) == (found.left_px, found.right_px)


@pytest.mark.reference
@pytest.mark.parametrize("make", [Skip, Folded, tiny_dephasenet])
def test_rows_are_those_of_a_row_by_row_run(make):
    """Another way to count: rows come in one by one, and what nobody needs any more is dropped."""
    network = make().eval()
    graph = capture(network, noise(1, 1, 32, 32))
    # Where bytes cost nothing, every row is computed as soon as it can be.
    free = dict.fromkeys((node.name for node in graph.nodes), 0.0)
    found = line_buffers(graph, kernels(network), free)
    assert found.rows == counted(graph, network, found.latency_rows)


def counted(graph, network, latency: int, length: int = 160) -> dict[str, int]:
    axis = Axis(graph=graph, kernels=kernels(network))
    scales, places, nodes = axis.scales(), axis.places(), graph.by_name()
    stored = [node for node in graph.nodes if not node.moves]

    def behind(name: str, first: int, last: int) -> list[tuple[str, int, int]]:
        return taken(nodes[name], first, last) if nodes[name].moves else [(name, first, last)]

    def taken(node, first: int, last: int) -> list[tuple[str, int, int]]:
        rows = np.array([first]), np.array([last])
        spans = [(n, axis.spans(node, places[n], rows)) for n in node.inputs]
        return [x for n, (low, high) in spans for x in behind(n, int(low[0]), int(high[0]))]

    def able(node) -> bool:
        row = made[node.name]
        return all(last < made[n] for n, _, last in taken(node, row, row))

    made = dict.fromkeys((node.name for node in stored), 0)
    sent, most = 0, dict.fromkeys(made, 0)
    for moment in range(length):
        for node in stored:
            made[node.name] = made[node.name] if node.inputs else moment + 1
            while node.inputs and able(node):
                made[node.name] += 1
        while sent * scales[graph.output] + latency <= moment:
            sent += 1
        if moment < length // 2:
            continue
        oldest = dict(made)
        needs = [x for n in stored for x in taken(n, made[n.name], made[n.name])]
        for name, first, _ in [*needs, *behind(graph.output, sent, sent)]:
            oldest[name] = min(oldest[name], first)
        most = {name: max(most[name], made[name] - oldest[name]) for name in made}
    return most


@pytest.mark.unit
def test_every_operation_is_known():
    network = Everything().eval()
    graph = capture(network, noise(1, 1, 16, 16))
    assert stride_px(graph, kernels(network)) % 4 == 0
    found = line_buffers(graph, kernels(network), dict.fromkeys((n.name for n in graph.nodes), 1.0))
    assert all(rows >= 0 for rows in found.rows.values())


class Across(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x):
        return self.mix(x.transpose(2, 3)).transpose(2, 3)


@pytest.mark.unit
def test_rows_without_a_bound_are_refused():
    torch.manual_seed(0)
    network = Across().eval()
    graph = capture(network, noise(1, 1, 16, 16))
    with pytest.raises(ModelError, match="a bounded number of others"):
        line_buffers(graph, kernels(network), dict.fromkeys((n.name for n in graph.nodes), 1.0))
