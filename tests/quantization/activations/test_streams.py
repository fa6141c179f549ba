"""Equal ranges of a residual stream's channels: the output stays, and fewer codes are wasted."""

from __future__ import annotations

import copy

import pytest
import torch
from activation_kit import noise, tiny_dephasenet
from torch import Tensor, nn
from torch.nn import functional

from quantisp.quantization import Plan, quantize
from quantisp.quantization.activations.streams import equalize_streams
from quantisp.quantization.watching import watch

pytestmark = pytest.mark.unit


class Trunk(nn.Module):
    """Two blocks on a trunk of very unequal channels, with a gate, to fewer pixels and back."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.low = nn.Conv2d(16, 32, 1)
        self.tail = nn.Conv2d(8, 4, 3, padding=1)
        with torch.no_grad():
            uneven = torch.logspace(-1.0, 1.0, 8)
            for writer in (self.head, self.second):
                writer.weight.mul_(uneven.reshape(-1, 1, 1, 1))
            self.low.weight.mul_(uneven.repeat_interleave(4).reshape(-1, 1, 1, 1))
            for reader in (self.first, self.gate, self.tail):
                reader.weight.div_(uneven[:, None, None])
            self.tail.weight.mul_(0.2)
            self.tail.bias.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        fold = functional.pixel_unshuffle(x, 4)
        up = functional.pixel_shuffle(self.low(fold), 2)
        x = self.head(functional.pixel_unshuffle(x, 2)) + up
        block = x + self.second(torch.relu(self.first(x)))
        x = x.addcmul(block, torch.sigmoid(self.gate(block)))
        return functional.pixel_shuffle(self.tail(x), 2)


@pytest.fixture
def trunk() -> Trunk:
    torch.manual_seed(1)
    return Trunk().eval()


INPUTS = [noise(2, 1, 24, 24, seed=seed) for seed in range(3)]


def ranges(network: nn.Module, layer: str) -> Tensor:
    """Of each channel that a layer takes."""
    taken = [watch(network, [layer], x)[layer][0].taken for x in INPUTS]
    found = torch.cat([x.transpose(0, 1).flatten(1) for x in taken if x is not None], dim=1)
    return found.abs().amax(1)


def test_the_output_stays_and_the_sum_has_channels_of_equal_ranges(trunk: Trunk) -> None:
    before = copy.deepcopy(trunk.state_dict())
    found = equalize_streams(trunk, INPUTS)
    assert torch.allclose(found(INPUTS[0]), trunk(INPUTS[0]), atol=1e-5)
    assert float(ranges(trunk, "tail").max() / ranges(trunk, "tail").min()) > 10.0
    assert float(ranges(found, "tail").max() / ranges(found, "tail").min()) < 2.0
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_layers_in_a_row_keep_the_channels_between_them(trunk: Trunk) -> None:
    found = equalize_streams(trunk, INPUTS)
    assert torch.allclose(ranges(found, "second"), ranges(trunk, "second"), rtol=1e-4)


def test_activations_in_integers_are_nearer_to_float(trunk: Trunk) -> None:
    plan = Plan.uniform(weight_bits=None, activation_bits=8)
    wanted = trunk(INPUTS[0])

    def error(network: nn.Module) -> float:
        found = quantize(network, plan, INPUTS)
        with torch.no_grad():
            return float((found(INPUTS[0]) - wanted).square().mean())

    assert error(equalize_streams(trunk, INPUTS)) < 0.5 * error(trunk)


def test_dephasenet_is_known_from_its_graph() -> None:
    """Two subnets with gates; the upward path goes through pixels that become channels."""
    network = tiny_dephasenet()
    crops = [noise(1, 1, 32, 32, seed=seed) for seed in range(3)]
    found = equalize_streams(network, crops)
    changed = {
        name
        for name, value in found.state_dict().items()
        if not torch.allclose(value, network.state_dict()[name])
    }
    assert {"fine_head.weight", "coarse_to_fine.weight", "tail.weight"} <= changed
    assert {"coarse_head.weight", "coarse_subnet.blocks.1.conv2.weight"} <= changed
    # What the input, the output and a gate's share are on stays.
    assert not {"skip.weight", "fine_subnet.gates.0.excite.weight", "tail.bias"} & changed
    assert torch.allclose(found(crops[0]), network(crops[0]), atol=1e-5)


class Uneven(nn.Module):
    """A sum on eight channels of uneven ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.tail = nn.Conv2d(8, 1, 1)
        with torch.no_grad():
            self.head.weight.mul_(torch.logspace(-1.0, 1.0, 8).reshape(-1, 1, 1, 1))


class Sum(Uneven):
    """x + f(x), with one thing that may forbid to scale it."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason
        if reason == "groups":
            self.body = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.other = nn.Conv2d(8, 8, 3, padding=1)
        if reason == "shared weight":
            self.other.weight = self.body.weight
        if reason == "shared bias":
            self.other.bias = self.body.bias

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        match self.reason:
            case "twice":
                return self.tail(self.body(x + self.body(x)) + x)
            case "shared weight" | "shared bias":
                return self.tail(x + self.other(self.body(x)))
            case "tanh":
                return self.tail(torch.tanh(x + self.body(x)))
            case "limit":
                return self.tail((x + self.body(x)).clamp(-0.3, 0.3))
            case "product":
                return self.tail(x + x * self.body(x))
            case "output":
                return x + self.body(x)
            case _:
                return self.tail(x + self.body(x))


REASONS = ["twice", "groups", "tanh", "limit", "product", "output", "shared weight", "shared bias"]


@pytest.mark.parametrize("reason", [*REASONS, ""])
def test_a_stream_stays_where_something_does_not_allow_to_scale_it(reason: str) -> None:
    torch.manual_seed(2)
    network = Sum(reason).eval()
    found = equalize_streams(network, INPUTS)
    assert torch.equal(found.head.weight, network.head.weight) == bool(reason)
    assert torch.allclose(found(INPUTS[0]), network(INPUTS[0]), atol=1e-5)


class Passing(Uneven):
    """A stream with what does not stop it: limits and functions that scale with their input."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        match self.way:
            case "clamped output":
                return self.tail(x + self.body(x)).clamp(-0.1, 0.2)
            case "relu of a trunk":
                return self.tail(x + self.body(torch.relu(x)))
            case "leaky relu":
                return self.tail(functional.leaky_relu(x + self.body(x), 0.1))
            case "factor":
                return self.tail(x + 0.1 * self.body(x))
            case "functional":
                return functional.conv2d(x + self.body(x), self.tail.weight, self.tail.bias)
            case _:
                y = torch.cat([x, self.body(x)], dim=2)
                return self.tail(y[:, :, : x.shape[2]] + x)


WAYS = ["clamped output", "relu of a trunk", "leaky relu", "factor", "functional", "rows"]


@pytest.mark.parametrize("way", WAYS)
def test_what_scales_with_its_input_does_not_stop_a_stream(way: str) -> None:
    torch.manual_seed(2)
    network = Passing(way).eval()
    found = equalize_streams(network, INPUTS)
    assert not torch.equal(found.head.weight, network.head.weight)
    # Where the ranges were found, and at another size.
    for x in (INPUTS[0], noise(1, 1, 12, 40)):
        assert torch.allclose(found(x), network(x), atol=1e-5)


def test_pixels_that_became_channels_have_one_range() -> None:
    class Fold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(1, 4, 3, padding=1)
            self.body = nn.Conv2d(4, 4, 3, padding=1)
            self.tail = nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.head(x)
            x = functional.pixel_unshuffle(x + self.body(x), 2)
            return functional.pixel_shuffle(self.tail(x), 2)

    torch.manual_seed(3)
    network = Fold().eval()
    with torch.no_grad():
        network.head.weight.mul_(torch.logspace(-0.5, 0.5, 4).reshape(-1, 1, 1, 1))
    found = equalize_streams(network, INPUTS)
    assert torch.allclose(found(INPUTS[0]), network(INPUTS[0]), atol=1e-5)
    largest = ranges(found, "tail").reshape(4, 4).amax(1)
    assert float(largest.max() / largest.min()) < 1.2


def test_the_last_reader_decides() -> None:
    """In the middle of the trunk, channels have other ranges than at its end."""
    torch.manual_seed(1)
    network = Trunk().eval()
    with torch.no_grad():
        network.second.weight.mul_(torch.logspace(0.0, 2.0, 8).flip(0).reshape(-1, 1, 1, 1))
    found = equalize_streams(network, INPUTS)

    def spread(layer: str) -> float:
        of = ranges(found, layer)
        return float(of.max() / of.min())

    assert spread("tail") < 2.0 < spread("first")


def test_no_channel_is_scaled_without_limit(trunk: Trunk) -> None:
    with torch.no_grad():
        for layer in (trunk.head, trunk.second):
            layer.weight[3] *= 1e-6
            layer.bias[3] = 0.0  # pyright: ignore[reportOptionalSubscript]
        trunk.low.weight[12:16] *= 1e-6
        trunk.low.bias[12:16] = 0.0  # pyright: ignore[reportOptionalSubscript]
    found = equalize_streams(trunk, INPUTS)
    scales = (found.head.weight / trunk.head.weight).flatten(1).mean(1)
    assert float(scales.detach().max()) == pytest.approx(16.0)


def test_an_input_that_the_network_pads_is_padded() -> None:
    network = tiny_dephasenet()
    crops = [noise(1, 1, 30, 34, seed=seed) for seed in range(2)]
    found = equalize_streams(network, crops)
    assert not torch.equal(found.tail.weight, network.tail.weight)
    assert torch.allclose(found(crops[0]), network(crops[0]), atol=1e-5)


def test_a_channel_that_is_always_zero_does_no_harm(trunk: Trunk) -> None:
    with torch.no_grad():
        for layer in (trunk.head, trunk.second):
            layer.weight[3] = 0.0
            layer.bias[3] = 0.0  # pyright: ignore[reportOptionalSubscript]
        trunk.low.weight[12:16] = 0.0
        trunk.low.bias[12:16] = 0.0  # pyright: ignore[reportOptionalSubscript]
    found = equalize_streams(trunk, INPUTS)
    assert all(bool(value.isfinite().all()) for value in found.state_dict().values())
    assert torch.allclose(found(INPUTS[0]), trunk(INPUTS[0]), atol=1e-5)
