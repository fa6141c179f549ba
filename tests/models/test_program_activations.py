"""Activations of programs in integers: captured at the batch and the sizes that they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from quantisp.errors import ModelError
from quantisp.models import LoadedModel, load_program_file
from quantisp.quantization import Plan, QuantizedModel, capture, quantize
from quantisp.quantization.integer import IntegerExecutor, integer_network

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

HEIGHT, WIDTH = Dim("h", min=16, max=512), Dim("w", min=16, max=512)
SIDE = Dim("side", min=16, max=512)
FORMS: dict[str, Any] = {
    "dynamic height and width": {2: HEIGHT, 3: WIDTH},
    "even squares": {2: 2 * SIDE, 3: 2 * SIDE},
    "fixed": None,
}
OTHERS = {"dynamic height and width": (48, 35), "even squares": (48, 48), "fixed": (32, 32)}
W8A8 = Plan.uniform(weight_bits=8, activation_bits=8)


class Net(nn.Module):
    """Pads, moves, sums and a product."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.gate = nn.Conv2d(8, 8, 1)
        self.tail = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.head(x))
        y = y * torch.sigmoid(self.gate(y))
        small = functional.pixel_unshuffle(functional.pixel_shuffle(self.tail(y), 2), 2)
        return x + 0.2 * torch.cat([small[:, :2], small[:, 5:6]], 1)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def program(folder: Path, sizes: Any, batch: int = 1) -> LoadedModel:
    shapes = None if sizes is None else (sizes,)
    exported = torch.export.export(Net().eval(), (noise(batch, 3, 32, 32),), dynamic_shapes=shapes)
    torch.export.save(exported, folder / "net.pt2")
    return load_program_file(folder / "net.pt2")


def in_integers(quantized: QuantizedModel) -> IntegerExecutor:
    return IntegerExecutor(integer_network(quantized), quantized.network)


@pytest.mark.parametrize("form", FORMS)
def test_a_program_in_integers_is_its_network_in_integers(form: str, tmp_path: Path):
    loaded = program(tmp_path, FORMS[form])
    calibration = [noise(1, 3, 32, 32), noise(1, 3, 32, 32).flip(2)]
    found = quantize(loaded.model, W8A8, calibration).eval()
    expected = quantize(Net().eval(), W8A8, calibration).eval()
    for size in dict.fromkeys([(32, 32), OTHERS[form]]):
        x = noise(1, 3, *size)
        with torch.no_grad():
            assert torch.equal(found(x), expected(x))
            assert torch.equal(in_integers(found)(x), in_integers(expected)(x))
            assert float((found(x) - Net().eval()(x)).abs().max()) < 0.05


def test_the_graph_runs_at_the_sizes_of_the_program(tmp_path: Path):
    sizes = {"fixed": None, "height": {2: HEIGHT}, "all": {0: Dim("n"), 2: HEIGHT, 3: WIDTH}}
    found = {
        name: capture(program(tmp_path, dims, 1 + (name == "all")).model, noise(1, 3, 32, 32))
        for name, dims in sizes.items()
    }
    assert {name: graph.size for name, graph in found.items()} == {
        "fixed": (32, 32),
        "height": (32, 32),
        "all": None,
    }
    assert [graph.example[0] for graph in found.values()] == [1, 1, 2]


def test_a_batch_of_its_own_is_kept_and_another_one_is_named(tmp_path: Path):
    loaded = program(tmp_path, {2: HEIGHT, 3: WIDTH}, batch=4)
    assert capture(loaded.model, noise(4, 3, 32, 32)).example == (4, 3, 32, 32)
    message = r"\(4, 3, 16 to 512, 16 to 512\), found \(1, 3, 32, 32\): .* dimension 0, the batch$"
    for answer in (loaded.model, lambda x: capture(loaded.model, x)):
        with pytest.raises(ModelError, match=message):
            answer(noise(1, 3, 32, 32))
