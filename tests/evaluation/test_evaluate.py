"""An evaluation against sums made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from quantisp.cfa import CFAPattern
from quantisp.data import find_images
from quantisp.errors import SettingError
from quantisp.evaluation import evaluate_pictures, mosaicked, survey
from quantisp.records import EvaluationResult

BAYER = CFAPattern.named("bayer")


class Grey(nn.Module):
    """Restores every pixel as its own sample in all three colours."""

    def forward(self, mosaic: Tensor) -> Tensor:
        return mosaic.expand(-1, 3, -1, -1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    Image.fromarray(samples).save(tmp_path / "noise.png")
    return tmp_path


def evaluated(folder: Path, border_px: int) -> EvaluationResult:
    return evaluate_pictures(
        name="grey",
        model=Grey(),
        model_sha256="",
        degradation=mosaicked(BAYER),
        pictures=survey(find_images([folder]), mosaicked(BAYER)),
        device=torch.device("cpu"),
        border_px=border_px,
    )


@pytest.mark.reference
@pytest.mark.parametrize("border_px", [0, 1, 16, 19])
def test_a_border_is_left_out(folder: Path, border_px: int) -> None:
    truth = np.asarray(Image.open(folder / "noise.png")).astype(np.float64) / 255
    seen = truth[:, :, 1].copy()
    seen[::2, ::2] = truth[::2, ::2, 0]
    seen[1::2, 1::2] = truth[1::2, 1::2, 2]
    error = (truth - seen[:, :, None]) ** 2
    inside = error[border_px : 40 - border_px, border_px : 52 - border_px]
    found = evaluated(folder, border_px)
    assert found.border_px == border_px
    assert found.psnr_db == pytest.approx(-10 * np.log10(error.mean()), abs=1e-4)
    assert found.psnr_cropped_db == pytest.approx(-10 * np.log10(inside.mean()), abs=1e-4)


@pytest.mark.unit
@pytest.mark.parametrize("border_px", [-1, 20, 1000])
def test_a_border_that_leaves_nothing_is_refused(folder: Path, border_px: int) -> None:
    with pytest.raises(SettingError, match=f"a border of 0 to 19 px.*found {border_px}"):
        evaluated(folder, border_px)
