"""A captured graph is the network: the same output, at every size, whatever it is made of."""

from __future__ import annotations

import pytest
import torch
from activation_kit import Everything, noise, tiny_dephasenet
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern
from quantisp.errors import ModelError
from quantisp.models import DePhaseNet, DePhaseNetConfig
from quantisp.quantization import capture, run_float
from quantisp.quantization.graph import Graph, pad_inside
from quantisp.quantization.graph.nodes import Clamp, Conv


@pytest.fixture(scope="module")
def everything() -> tuple[nn.Module, Graph]:
    torch.manual_seed(3)
    network = Everything().eval()
    return network, capture(network, noise(1, 1, 16, 24))


@pytest.mark.reference
@pytest.mark.parametrize("size", [(16, 24), (20, 36)])
def test_the_float_execution_equals_the_network_at_every_size(everything, size):
    network, graph = everything
    x = noise(3, 1, *size)
    with torch.no_grad():
        torch.testing.assert_close(run_float(graph, network, x), network(x), atol=1e-5, rtol=0)


def test_a_relu_is_part_of_the_convolution_before_it(everything):
    _, graph = everything
    heads = [n.operation for n in graph.nodes if n.layer == "head"]
    assert isinstance(heads[0], Conv)
    assert heads[0].clamp == Clamp(lower=0.0)
    assert [n.operation.clamp for n in graph.nodes if n.layer == "grouped"] == [
        Clamp(lower=0.0, upper=6.0)
    ]


def test_two_captures_are_equal(everything):
    network, graph = everything
    assert capture(network, noise(2, 1, 16, 24)) == graph


def test_capturing_changes_nothing():
    network = Everything().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    capture(network, noise(1, 1, 16, 16))
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.reference
@pytest.mark.parametrize("size", [(16, 16), (21, 30)])
def test_dephasenet_is_captured_for_every_size(size):
    network = tiny_dephasenet()
    graph = capture(network, noise(1, 1, 24, 24))
    x = noise(1, 1, *size)
    with torch.no_grad():
        found = run_float(graph, network, pad_inside(network, x))[:, :, : size[0], : size[1]]
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=0)
    assert graph.size is None


@pytest.mark.parametrize("phases", ["coarse", "fine"])
def test_a_part_that_gives_zeros_leaves_no_node(phases):
    config = DePhaseNetConfig(
        fine_channels=4, fine_blocks=1, coarse_channels=4, coarse_blocks=1, phases=phases
    )
    network = DePhaseNet(config, CFAPattern.named("rgbw-kodak")).eval()
    x = noise(1, 1, 16, 16)
    with torch.no_grad():
        found = run_float(capture(network, x), network, x)
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=0)


class Unknown(nn.Module):
    def __init__(self, operation) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 1)
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self.inner(x))


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda x: x.cumsum(2), "aten.cumsum.default"),
        (lambda x: functional.softmax(x, 1), "aten.softmax.int"),
        (lambda x: x * torch.tensor([0.3, 0.4, 0.5, 0.6]), "by other numbers than 0 and 1"),
        (lambda x: functional.pad(x, (1, 1), value=0.5), "aten.pad.default"),
    ],
)
def test_an_unknown_operation_is_named_with_its_place(operation, name):
    with pytest.raises(ModelError) as caught:
        capture(Unknown(operation), noise(1, 1, 8, 4))
    message = str(caught.value)
    assert name in message
    assert (
        "the network itself, return self.operation(self.inner(x))" in message or "lambda" in message
    )
    assert "\n" not in message


def test_a_computed_weight_is_an_error():
    class Computed(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return functional.conv2d(input, self.weight * 2, self.bias)

    with pytest.raises(ModelError, match="fold"):
        capture(nn.Sequential(Computed(1, 1, 1)), noise(1, 1, 4, 4))


def test_a_network_of_one_size_says_so():
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2] == 8
            return functional.relu(x)

    graph = capture(Fixed(), noise(1, 1, 8, 8))
    assert graph.size == (8, 8)
    with pytest.raises(ModelError, match="expected an input of 8x8 px"):
        run_float(graph, Fixed(), noise(1, 1, 12, 8))


def test_what_cannot_be_exported_is_an_error():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"torch\.export can capture, Branching fails"):
        capture(Branching(), noise(1, 1, 8, 8))
