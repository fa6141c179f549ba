"""Batch normalisations become part of the layer before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantisp.quantization import Plan, fold_batch_norms, quantize

pytestmark = pytest.mark.unit
EXAMPLE = torch.rand(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))


def random(network: nn.Module) -> nn.Module:
    """With statistics as after some training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if value.is_floating_point():
                # A variance, and gains: above zero, and not one.
                value.copy_(torch.rand(value.shape, generator=generator) + 0.2)
                if "weight" in name and value.ndim > 1:
                    value.sub_(0.7)
    return network.eval()


class Flat(nn.Module):
    """A linear layer with its normalisation on pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.mix(x.mean(dim=(2, 3))))[:, :, None, None]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "without bias": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2),
    "transposed, grouped": lambda: nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, bias=False),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("affine", [True, False])
def test_a_folded_network_gives_the_same(kind: str, affine: bool):
    layer = LAYERS[kind]()
    network = random(nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels, affine=affine)))
    found = fold_batch_norms(network, EXAMPLE)
    assert dict(found.folded) == {"1": "0"}
    assert not found.left
    assert isinstance(found.network[1], nn.Identity)
    assert isinstance(network[1], nn.BatchNorm2d)
    other = torch.rand(2, 4, 9, 9, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(found.network(other), network(other), rtol=1e-4, atol=1e-4)
    assert quantize(found.network, Plan.uniform(weight_bits=8)).codes.keys() == {"0"}


def test_a_linear_layer_takes_its_normalisation():
    network = random(Flat())
    found = fold_batch_norms(network, EXAMPLE)
    assert dict(found.folded) == {"norm": "mix"}
    with torch.no_grad():
        torch.testing.assert_close(found.network(EXAMPLE), network(EXAMPLE), rtol=1e-4, atol=1e-4)


class Skip(nn.Module):
    """The output of the convolution has two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        # A reader that changes nothing for the example alone must be seen, too.
        return self.norm(y) + 0.0 * y


class InPlace(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).relu_())


class Twice(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(x)))


class NormTwice(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(x)))


class First(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Returned(Skip):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(y)
        return y if z.shape[0] == 1 else z


class Curious(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.norm.weight.shape[0]


class Unlearned(Skip):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Skip(), "is used elsewhere"),
        (InPlace(), "is used elsewhere"),
        (Twice(), "more than once"),
        (NormTwice(), "uses it 2 times"),
        (First(), "not the output of a layer"),
        (Returned(), "the network's output is another"),
        (Curious(), "the network's output is another"),
        (Unlearned(), "by what it sees"),
    ],
)
def test_what_cannot_be_folded_stays_and_says_why(network: nn.Module, reason: str):
    random(network)
    found = fold_batch_norms(network, EXAMPLE)
    assert not found.folded
    assert reason in found.left["norm"]
    with torch.no_grad():
        assert torch.equal(found.network(EXAMPLE), network(EXAMPLE))


def test_one_that_stays_does_not_keep_the_others():
    network = random(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), Skip(), nn.BatchNorm2d(4))
    )
    found = fold_batch_norms(network, EXAMPLE)
    assert dict(found.folded) == {"1": "0"}
    assert set(found.left) == {"3.norm", "4"}


def test_a_network_without_any_is_a_copy():
    network = nn.Sequential(nn.Conv2d(4, 4, 1))
    found = fold_batch_norms(network, EXAMPLE)
    assert found.network is not network
    assert (dict(found.folded), dict(found.left)) == ({}, {})
