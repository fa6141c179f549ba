"""Studies of ``torch.export`` programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from api_kit import write_pictures
from PIL import Image
from torch import Tensor, nn

from quantisp.api import load_model, study
from quantisp.data import read_picture
from quantisp.errors import ImageError, ModelError

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


@pytest.mark.parametrize("free", [True, False])
def test_activations_of_a_program_are_studied_as_its_networks(
    free: bool, pictures: Path, tmp_path: Path
):
    options = {"degradation": "noise:10", "weight_bits": [8], "activation_bits": [8]}
    found = study(export(tmp_path, free=free), pictures, execution="integer", **options)
    expected = study(Smoother(), pictures, execution="integer", **options)
    for row, other in zip(found.rows, expected.rows, strict=True):
        # A program takes one picture at a time, and one of a fixed size calibrates at that size.
        assert row.psnr_db == pytest.approx(other.psnr_db, abs=0.02)
        assert row.simulated_psnr_db == pytest.approx(row.psnr_db, abs=0.02)
        assert row.psnr_to_float_db > 40.0


@pytest.mark.parametrize(("height", "width"), [(160, 160), (104, 56)])
def test_a_program_of_a_fixed_size_calibrates_at_that_size(height: int, width: int, tmp_path: Path):
    program = torch.export.export(Smoother().eval(), (torch.rand(1, 3, height, width),))
    torch.export.save(program, tmp_path / "smoother.pt2")
    whole = write_pictures(tmp_path / "whole", count=1, px=160)
    samples = read_picture(whole / "picture0.png").samples[:height, :width]
    Image.fromarray(samples).save(whole / "picture0.png")
    options = {"degradation": "noise:10", "methods": ["gptq"], "granularities": ["channel"]}
    found = study(tmp_path / "smoother.pt2", whole, weight_bits=[4], **options)
    expected = study(Smoother(), whole, weight_bits=[4], **options)
    assert found.rows[0].psnr_db == pytest.approx(expected.rows[0].psnr_db, abs=0.1)


def test_pictures_too_small_to_calibrate_a_program_with_are_named_first(
    pictures: Path, tmp_path: Path
):
    path = export(tmp_path, free=False)
    small = write_pictures(tmp_path / "small", count=1, px=48)
    with pytest.raises(ImageError, match=r"at least 56x56 px, .*picture0\.png is 48x48"):
        study(
            path,
            pictures,
            degradation="noise:10",
            methods=["rtn", "gptq"],
            weight_bits=[4],
            calibration=small,
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()
