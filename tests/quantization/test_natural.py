"""Descent in the metric of the network's output, against Muon and on badly scaled inputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from quantisp.orthogonal import orthogonal
from quantisp.quantization.natural import Metric, WhitenedMuon, metrics_of
from quantisp.quantization.statistics import float_statistics


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (3, 8, 8)])
def test_orthogonal_is_near_the_polar_factor(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrix)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    # It has the same singular vectors.
    between = u.mT @ found @ v.mT
    assert bool((between - torch.diag_embed(between.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-4)


def metrics_seen(
    network: nn.Module, curvatures: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> dict[str, Metric]:
    return metrics_of(curvatures, float_statistics(network, list(curvatures), inputs))


@pytest.mark.reference
@pytest.mark.parametrize("shape", [(3, 1, 6, 40), (2, 40, 6), (5, 5)])
def test_orthogonal_matrices_are_those_of_newton_and_schulz(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    given = torch.randn(shape)
    x = given / torch.linalg.matrix_norm(given, keepdim=True)
    for _ in range(5):
        third = x @ x.mT @ x
        x = 3.4445 * x - 4.7750 * third + 2.0315 * (x @ x.mT @ third)
    torch.testing.assert_close(orthogonal(given), x, rtol=1e-4, atol=1e-4)


def test_in_white_coordinates_it_is_muon() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 5, bias=False)
    ours, theirs = (layer.weight.detach().clone().requires_grad_() for _ in range(2))
    white = torch.cat([torch.eye(12), -torch.eye(12)])
    metric = metrics_seen(layer, {"": torch.eye(5, dtype=torch.float64)[None]}, [white])[""]
    optimizers = [
        WhitenedMuon([(layer, ours, metric)], [0.1]),
        torch.optim.Muon([theirs], 0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(4):
        gradient = torch.randn(5, 12)
        for value, optimizer in zip((ours, theirs), optimizers, strict=True):
            value.grad = gradient
            optimizer.step()
    moved = [(value - layer.weight).flatten().detach() for value in (ours, theirs)]
    # Muon's own iteration is in bfloat16.
    assert float(torch.cosine_similarity(*moved, dim=0)) > 0.999


def test_each_step_is_as_long_as_its_rate() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(4, 4, 3, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.ConvTranspose2d(4, 2, 3, stride=2, bias=False),
    ]
    network = nn.Sequential(*layers)
    curvatures = {
        "0": torch.eye(4, dtype=torch.float64)[None],
        "1": torch.ones(4, 1, 1, dtype=torch.float64),
        "2": torch.eye(2, dtype=torch.float64)[None],
    }
    inputs = [torch.rand(1, 4, 9, 9)]
    found = metrics_seen(network, curvatures, inputs)
    values = [layer.weight.detach().clone().requires_grad_() for layer in layers]
    optimizer = WhitenedMuon(
        [
            (layer, value, found[str(n)])
            for n, (layer, value) in enumerate(zip(layers, values, strict=True))
        ],
        [0.01, 0.3, 0.02],
    )
    for value in values:
        value.grad = torch.randn_like(value)
    optimizer.step()
    sizes = [
        float((value - layer.weight).detach().square().mean().sqrt())
        for layer, value in zip(layers, values, strict=True)
    ]
    assert sizes == pytest.approx([0.01, 0.3, 0.02], rel=1e-4)


def test_what_has_no_gradient_stays_and_the_others_move_as_alone() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 4, bias=False) for _ in range(3)]
    eye = torch.eye(4, dtype=torch.float64)[None]
    metrics = [metrics_seen(layer, {"": eye}, [torch.rand(50, 6)])[""] for layer in layers]
    gradients = [torch.randn(4, 6) for _ in layers]

    def moved(indices: list[int], rates: list[float]) -> list[Tensor]:
        values = [layer.weight.detach().clone().requires_grad_() for layer in layers]
        kept = [(layers[i], values[i], metrics[i]) for i in range(3)]
        optimizer = WhitenedMuon(kept, rates)
        for now in ([0, 1, 2], indices):
            for index, value in enumerate(values):
                value.grad = gradients[index] if index in now else None
            optimizer.step()
        return [value.detach() for value in values]

    once, twice = moved([], [0.1] * 3), moved([0, 1, 2], [0.1] * 3)
    found = moved([2, 0], [0.1] * 3)
    torch.testing.assert_close(found[1], once[1], rtol=0, atol=0)
    for index in (0, 2):
        torch.testing.assert_close(found[index], twice[index])
        assert not torch.allclose(found[index], once[index])


def test_it_goes_on_from_its_moments() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    metric = metrics_seen(layer, {"": torch.eye(4, dtype=torch.float64)[None]}, [torch.rand(9, 6)])
    value = layer.weight.detach().clone().requires_grad_()
    optimizer = WhitenedMuon([(layer, value, metric[""])], [0.1])
    value.grad = torch.randn(4, 6)
    optimizer.step()
    other = value.detach().clone().requires_grad_()
    resumed = WhitenedMuon([(layer, other, metric[""])], [0.1])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    # Metrics are not kept: they are large, and the same every time.
    assert sum(v.numel() for s in resumed.state_dict()["state"].values() for v in s.values()) == 24
    value.grad = other.grad = torch.randn(4, 6)
    optimizer.step()
    resumed.step()
    assert torch.equal(value, other)


def test_layers_that_no_input_reaches_do_no_harm() -> None:
    """Their curvature and moments are nothing, and their gradients may come to be something."""
    layer = nn.Linear(6, 4, bias=False)
    metric = metrics_seen(layer, {"": torch.zeros(1, 4, 4).double()}, [torch.zeros(9, 6)])[""]
    value = layer.weight.detach().clone().requires_grad_()
    optimizer = WhitenedMuon([(layer, value, metric)], [0.1])
    for size in (0.0, 1e-20, 1.0):
        value.grad = torch.full((4, 6), size)
        optimizer.step()
        assert bool(value.isfinite().all())


def test_scales_of_inputs_do_not_slow_it() -> None:
    """The same problem in other units takes the same steps, in those units: Muon's do not."""

    def distance(kind: str) -> float:
        torch.manual_seed(0)
        scales = torch.logspace(-1.5, 0.0, 16)
        x = torch.randn(256, 16) * scales
        layer = nn.Linear(16, 8, bias=False)
        wanted = x @ torch.randn(8, 16).mT
        weight = layer.weight.detach().clone().requires_grad_()
        metric = metrics_seen(layer, {"": torch.eye(8, dtype=torch.float64)[None]}, [x])[""]
        optimizer: torch.optim.Optimizer = (
            WhitenedMuon([(layer, weight, metric)], [0.1])
            if kind == "whitened"
            else torch.optim.Muon([weight], 0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        )
        rates = [group["lr"] for group in optimizer.param_groups]
        loss: Tensor = torch.zeros(())
        for step in range(60):
            loss = (x @ weight.mT - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1.0 - step / 60)
            optimizer.step()
        return float(loss.detach())

    assert distance("whitened") < 0.5 * distance("muon")
