"""What torch.compile is given: parts that repeat, once for all."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from quantisp.training.workers import compiled_model

# By itself, for torch.compile does not look into the checks of types that tests run with. The
# stand-in for the compiler counts what it is given, and runs that.
REPEATED = """
import copy
from functools import partial
import torch
from quantisp.cfa import CFAPattern
from quantisp.models import DePhaseNet, DePhaseNetConfig
from quantisp.training.workers import compiled_model

graphs = []

def keep(graph, _inputs):
    graphs.append(graph)
    return graph.forward

torch.compile = partial(torch.compile, backend=keep)
config = DePhaseNetConfig(fine_channels=8, fine_blocks=4, coarse_channels=12, coarse_blocks=3)
torch.manual_seed(0)
plain = DePhaseNet(config, CFAPattern.named("rgbw-kodak")).to(memory_format=torch.channels_last)
trained = copy.deepcopy(plain)
forward = compiled_model(trained)
for steps in range(2):
    mosaic = torch.rand(2, 1, 16, 16)
    found = []
    for network, run in ((plain, plain), (trained, forward)):
        output = run(mosaic)
        gradients = torch.autograd.grad(output.square().mean(), list(network.parameters()))
        found.append((output.detach(), *gradients))
    torch.testing.assert_close(found[1], found[0])
print(len(graphs))
"""


@pytest.mark.unit
def test_a_network_is_compiled_once_for_all_blocks_of_a_subnet() -> None:
    command = [sys.executable, "-W", "ignore", "-c", REPEATED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Seven blocks of two shapes.
    assert done.stdout == "2\n", done.stderr[-2000:]


@pytest.mark.unit
def test_another_network_is_compiled_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def compiled(network: nn.Module) -> nn.Module:
        asked.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    assert compiled_model(network) is network
    assert asked == [network]
