"""What a sensor gives of a picture, and how a network's linear output is compared with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from study_kit import KODAK_CFA, truth
from torch import Tensor, nn

from quantisp.api import evaluate
from quantisp.api_inputs import find_degradation
from quantisp.api_simulate import simulate
from quantisp.cfa import CFAPattern, mosaic
from quantisp.cfa.balance import balanced
from quantisp.cfa.color import decode_srgb
from quantisp.cfa.noise import camera_noise
from quantisp.cfa.raw import read_raw
from quantisp.cfa.simulation import SensorSettings
from quantisp.errors import SettingError
from quantisp.evaluation import captured, parse_degradation
from quantisp.models import LoadedModel, Provenance

pytestmark = pytest.mark.unit


def test_its_light_is_the_pictures_and_its_noise_the_cameras():
    rgb = torch.full((1, 3, 256, 256), 0.5)
    light = decode_srgb(rgb)
    given = captured(KODAK_CFA, 800.0).degrade(rgb, "one").double()
    noise = camera_noise(800.0)
    level = float(light[0, 0, 0, 0])
    assert float(given.mean()) == pytest.approx(level, abs=1e-3)
    assert float(given.var()) == pytest.approx(noise.shot * level + noise.read, rel=0.03)


def test_noise_follows_from_the_content_alone():
    rgb = truth(0, 40, 44)
    degradation = captured(KODAK_CFA, 800.0)
    assert torch.equal(degradation.degrade(rgb, "one"), degradation.degrade(rgb, "one"))
    assert not torch.equal(degradation.degrade(rgb, "one"), degradation.degrade(rgb, "other"))
    batch = degradation.degrade(torch.cat([rgb, rgb]), "one")
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.reference
def test_it_is_the_capture_that_simulate_writes_but_for_the_noise(tmp_path: Path):
    rgb = (truth(0, 40, 44) * 255.0).round() / 255.0
    picture = rgb[0].permute(1, 2, 0).mul(255.0).round().to(torch.uint8).numpy()
    Image.fromarray(picture).save(tmp_path / "a.png")
    simulate([tmp_path / "a.png"], SensorSettings(pattern=KODAK_CFA), tmp_path / "raw")
    written = balanced(read_raw(tmp_path / "raw" / "a.dng"), (1.0, 1.0, 1.0))
    given = np.mean(
        [captured(KODAK_CFA, 25.0).degrade(rgb, str(n)).numpy()[0, 0] for n in range(60)], axis=0
    )
    assert np.abs(given - written).max() < 0.01


class Bilinear(nn.Module):
    """The mosaic itself as grey: enough to see what becomes of an output."""

    pattern = KODAK_CFA

    def forward(self, samples: Tensor) -> Tensor:
        return samples.expand(-1, 3, -1, -1)


def grey_picture(folder: Path, level: int) -> Path:
    Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(folder / "grey.png")
    return folder / "grey.png"


def test_a_linear_output_is_compared_as_it_is_shown(tmp_path: Path):
    path = grey_picture(tmp_path, 128)
    linear = evaluate(Bilinear(), path, degradation="raw:25")
    coded = evaluate(Bilinear(), path, degradation="raw-srgb:25")
    assert linear.degradation == "raw:25"
    # Of a grey picture, code and output change places; the noise is the same.
    assert linear.psnr_db == pytest.approx(coded.psnr_db, abs=1e-6)
    assert linear.psnr_db > 40.0
    assert evaluate(Bilinear(), path, degradation="raw:6400").psnr_db < linear.psnr_db - 15.0


def test_coded_samples_pass_the_curve():
    rgb = truth(1, 32, 32)
    coded = captured(KODAK_CFA, 25.0, "srgb").degrade(rgb, "")
    linear = captured(KODAK_CFA, 25.0).degrade(rgb, "")
    bright = linear > 0.1
    assert torch.allclose(decode_srgb(coded)[bright], linear[bright], atol=1e-4)
    assert float((coded - mosaic(rgb, KODAK_CFA)).abs().median()) < 0.1


def test_names_and_what_is_refused():
    names = ["raw:800", "raw:6400", "raw-srgb:800"]
    found = [parse_degradation(name, KODAK_CFA) for name in names]
    assert [one.name for one in found] == names
    assert len({str(one.identity()) for one in found}) == 3
    with pytest.raises(SettingError, match="an ISO from 25 to 25600, found 1e"):
        parse_degradation("raw:1e9", KODAK_CFA)
    with pytest.raises(SettingError, match="the network names none"):
        parse_degradation("raw:800")
    for text in ("raw", "raw:x", "raw:0", "raw:-1", "raw:nan"):
        with pytest.raises(SettingError, match="expected a degradation among mosaic"):
            parse_degradation(text, KODAK_CFA)


def test_networks_of_linear_light_are_measured_on_it():
    made = {"command": "", "data": "", "date": "", "revision": "", "validation_psnr_db": ""}
    for domain, name in (("srgb", "mosaic"), ("linear", "raw:800")):
        loaded = LoadedModel(
            name="one",
            model=Bilinear(),
            pattern=CFAPattern.named("rgbw-kodak"),
            provenance=Provenance(domain=domain, **made),
        )
        assert find_degradation(loaded, None).name == name
