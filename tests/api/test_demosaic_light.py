"""Networks that were trained on captures' light: which is taken, and what it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from api_kit import tiny_net, write_pictures

from quantisp.api_demosaic import DemosaicSettings, demosaic_files
from quantisp.api_demosaic.networks import packaged_network
from quantisp.api_simulate import simulate
from quantisp.cfa import CFAPattern
from quantisp.cfa.simulation import SensorSettings
from quantisp.errors import ModelError
from quantisp.models import Provenance, write_model_file

pytestmark = pytest.mark.unit
KODAK_CFA = CFAPattern.named("rgbw-kodak")
MADE = Provenance(domain="root", command="", data="", date="", revision="", validation_psnr_db="")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", count=1, px=96)
    simulate([tmp_path / "photos"], SensorSettings(pattern=KODAK_CFA), tmp_path / "raw")
    return tmp_path / "raw" / "picture0.dng"


@pytest.mark.usefixtures("tiny_presets")
def test_a_network_of_roots_is_given_roots(capture: Path, tmp_path: Path):
    net = tiny_net()
    samples = {}
    for domain in ("root", "linear"):
        path = tmp_path / f"{domain}.safetensors"
        made = replace(MADE, domain=domain)
        write_model_file(path, net, preset="tiny", pattern=KODAK_CFA, provenance=made)
        for name, asked in (("file", None), ("given", "root")):
            out = tmp_path / f"{domain}-{name}"
            settings = DemosaicSettings(domain=asked)
            (result,) = demosaic_files([capture], out, model=path, settings=settings)
            samples[domain, name] = imagecodecs.png_decode(result.path.read_bytes())
    assert (samples["root", "file"] == samples["root", "given"]).all()
    assert (samples["linear", "given"] == samples["root", "given"]).all()
    assert (samples["linear", "file"] != samples["root", "file"]).any()


@pytest.mark.usefixtures("tiny_presets")
def test_tiles_equal_the_whole_under_the_root(capture: Path, tmp_path: Path):
    path = tmp_path / "root.safetensors"
    # Wide enough for the kernels that add up in one order at every size.
    write_model_file(path, tiny_net(), preset="tiny", pattern=KODAK_CFA, provenance=MADE)
    found = []
    for tile in (40, 768):
        settings = DemosaicSettings(tile_px=tile)
        (made,) = demosaic_files([capture], tmp_path / str(tile), model=path, settings=settings)
        found.append(imagecodecs.png_decode(made.path.read_bytes()).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1


def test_without_a_model_the_packaged_network_for_the_cfa_is_taken():
    assert packaged_network(CFAPattern.named("bayer")) == "dephasenet-lite-bayer"
    assert packaged_network(CFAPattern(("BG", "GR"))) == "dephasenet-lite-bayer"
    assert packaged_network(CFAPattern.named("quad-bayer")) == "dephasenet-lite-quad-bayer"
    with pytest.raises(ModelError, match="a network is packaged for, found x-trans: pass --model"):
        packaged_network(CFAPattern.named("x-trans"))


def test_of_several_the_one_of_captures_light_is_taken():
    for phase in (KODAK_CFA, KODAK_CFA.crop(top=3, left=1)):
        assert packaged_network(phase) == "dephasenet-lite-raw"
