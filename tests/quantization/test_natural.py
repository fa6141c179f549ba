"""Descent in the metric of the network's output, against Muon and on badly scaled inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantisp.quantization.natural import WhitenedMuon, metrics_of, orthogonal


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


def test_in_white_coordinates_it_is_muon() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 5, bias=False)
    ours, theirs = (layer.weight.detach().clone().requires_grad_() for _ in range(2))
    white = torch.cat([torch.eye(12), -torch.eye(12)])
    metric = metrics_of(layer, {"": torch.eye(5, dtype=torch.float64)[None]}, [white])[""]
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
    found = metrics_of(network, curvatures, inputs)
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


def test_scales_of_inputs_do_not_slow_it() -> None:
    """The same problem in other units takes the same steps, in those units: Muon's do not."""

    def distance(kind: str) -> float:
        torch.manual_seed(0)
        scales = torch.logspace(-1.5, 0.0, 16)
        x = torch.randn(256, 16) * scales
        layer = nn.Linear(16, 8, bias=False)
        wanted = x @ torch.randn(8, 16).mT
        weight = layer.weight.detach().clone().requires_grad_()
        metric = metrics_of(layer, {"": torch.eye(8, dtype=torch.float64)[None]}, [x])[""]
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
