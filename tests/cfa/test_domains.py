"""What the values of a mosaic stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantisp.cfa.domains import DOMAINS, from_domain, rooted, to_domain, unrooted
from quantisp.cfa.noise import camera_noise


@pytest.mark.property
@pytest.mark.parametrize("domain", DOMAINS)
def test_there_and_back(domain: str):
    light = torch.linspace(0.0, 1.0, 5001)
    seen = to_domain(domain, light)
    assert bool((seen.diff() > 0).all())
    assert float(seen[-1]) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(from_domain(domain, seen), light, atol=2e-6)


@pytest.mark.parametrize("domain", DOMAINS)
def test_what_is_saturated_stays_white(domain: str):
    assert float(to_domain(domain, torch.tensor([3.0]))) == pytest.approx(1.0, abs=1e-6)


def test_roots_leave_room_below_black():
    light = torch.tensor([-0.009, -0.001, 0.0])
    assert bool((rooted(light).diff() > 0).all())
    assert float(rooted(torch.tensor([-1.0]))) == 0.0
    assert torch.allclose(unrooted(rooted(light)), light, atol=1e-6)
    values = torch.tensor([-0.2, 0.0, 0.1], requires_grad=True)
    unrooted(values).sum().backward()
    assert values.grad is not None
    assert float(values.grad[0]) > 0.05


@pytest.mark.reference
def test_the_noise_of_photons_is_nearly_even_under_the_root():
    noise = camera_noise(800.0)
    rng = np.random.default_rng(0)
    spreads = []
    for level in (0.03, 0.1, 0.3, 0.9):
        values = rng.poisson(level / noise.shot, 20000) * noise.shot
        spreads.append(float(rooted(torch.from_numpy(values)).std()))
    assert max(spreads) < 1.3 * min(spreads)


@pytest.mark.parametrize("size", [1, 7, 33, 130])
def test_a_root_is_the_same_to_the_last_bit_at_every_size(size: int):
    values = torch.rand(200, 311, generator=torch.Generator().manual_seed(0)) * 1.1 - 0.05
    part = values[3 : 3 + size, 5 : 5 + size].contiguous()
    assert torch.equal(rooted(part), rooted(values)[3 : 3 + size, 5 : 5 + size])
    assert torch.equal(unrooted(part), unrooted(values)[3 : 3 + size, 5 : 5 + size])
