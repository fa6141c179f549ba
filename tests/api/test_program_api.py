"""Studies of ``torch.export`` programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from api_kit import write_pictures
from torch import Tensor, nn

from quantisp.api import load_model, study
from quantisp.errors import ModelError

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]


class Smoother(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.smooth = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.out = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.out(self.norm(self.smooth(x)).relu())


def export(folder: Path, *, free: bool) -> Path:
    sizes = {2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)} if free else None
    shapes = None if sizes is None else (sizes,)
    example = (torch.rand(1, 3, 56, 72 if free else 56),)
    program = torch.export.export(Smoother().eval(), example, dynamic_shapes=shapes)
    torch.export.save(program, folder / "smoother.pt2")
    return folder / "smoother.pt2"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("program") / "pictures", count=1, px=56)


def test_a_program_is_studied_as_its_network(pictures: Path, tmp_path: Path):
    options = {"degradation": "noise:10", "weight_bits": [4], "granularities": ["channel"]}
    path = export(tmp_path, free=True)
    # It takes one picture at a time, and calibration comes in batches.
    found = study(path, pictures, methods=["rtn", "gptq"], **options)
    expected = study(Smoother(), pictures, methods=["rtn", "gptq"], **options)
    assert found.model == "smoother"
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert row.psnr_db == pytest.approx(other.psnr_db, abs=0.01)
    assert {layer.name: layer.folded_into for layer in found.coverage} == {
        "smooth": None,
        "norm": "smooth",
        "out": None,
    }


def test_a_program_of_fixed_sizes_takes_those(pictures: Path, tmp_path: Path):
    path = export(tmp_path, free=False)
    result = study(path, pictures, degradation="noise:10", weight_bits=[8])
    assert result.rows[0].psnr_to_float_db > 40.0
    other = write_pictures(tmp_path / "other", count=1, px=64)
    with pytest.raises(ModelError, match=r"exported for \(1, 3, 56, 56\), found \(1, 3, 64, 64\)"):
        study(path, other, degradation="noise:10", weight_bits=[8], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_program_has_its_weights_in_it(tmp_path: Path):
    with pytest.raises(ModelError, match="which has its own: leave out"):
        load_model("net.pt2", weights="net.safetensors")
