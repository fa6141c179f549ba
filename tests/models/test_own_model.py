"""Networks that are not quantisp's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from quantisp.errors import ModelError
from quantisp.models import load_own_model

OWN = """
import torch
from quantisp.cfa import CFAPattern

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pattern = CFAPattern.named("bayer")
        self.spread = torch.nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, mosaic):
        return self.spread(mosaic)

def without_pattern():
    return torch.nn.Conv2d(1, 3, 1)

def wrong_pattern():
    network = without_pattern()
    network.pattern = "bayer"
    return network

def not_a_network():
    return 3

number = 3
"""


def refusal(read: Callable[[], object]) -> str:
    """The one line that a refused model is refused with."""
    with pytest.raises(ModelError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    return message


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle was executed",))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.unit
def test_an_own_network_is_built_and_loaded(own: str, tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    source = load_own_model(f"{own}:Own", None)
    state = {name: torch.full_like(v, 0.5) for name, v in source.model.state_dict().items()}
    safetensors.torch.save_file(state, weights)
    loaded = load_own_model(f"{own}:Own", weights)
    assert all(torch.equal(v, state[name]) for name, v in loaded.model.state_dict().items())
    assert (loaded.name, loaded.pattern.name) == (f"{own}:Own", "bayer")
    assert loaded.provenance is None
    assert not loaded.model.training
    assert loaded.model(torch.rand(1, 1, 6, 6)).shape == (1, 3, 6, 6)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("no_such_package.net:build", "cannot be imported"),
        ("{own}:no_such_name", "cannot be imported"),
        ("{own}", "expected package.module:factory"),
        ("{own}:", "expected package.module:factory"),
        (":build", "expected package.module:factory"),
        ("{own}:number", "expected"),
        ("{own}:wrong_pattern", "expected a CFAPattern as .pattern"),
        ("{own}:not_a_network", "found int"),
    ],
)
def test_a_factory_that_does_not_serve_is_refused(own: str, factory: str, reason: str) -> None:
    assert reason in refusal(lambda: load_own_model(factory.format(own=own), None))


@pytest.mark.unit
def test_weights_that_do_not_fit_an_own_network_are_refused(own: str, tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"

    def load() -> object:
        return load_own_model(f"{own}:Own", weights)

    assert "correct the path" in refusal(load)
    weights.write_bytes(b"abcd")
    assert "does not fit" in refusal(load)
    safetensors.torch.save_file({"spread.weight": torch.zeros(3, 1, 3, 3)}, weights)
    assert "spread.bias" in refusal(load)
    nan = torch.full((3,), float("nan"))
    safetensors.torch.save_file(
        {"spread.weight": torch.zeros(3, 1, 3, 3), "spread.bias": nan}, weights
    )
    assert "NaN or infinity" in refusal(load)
    torch.save({"spread.weight": Malicious()}, weights)
    refusal(load)
