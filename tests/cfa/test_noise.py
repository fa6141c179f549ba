from __future__ import annotations

import itertools

import numpy as np
import pytest

from quantisp.cfa.noise import CAMERAS, NoiseModel, add_noise, camera_noise
from quantisp.errors import SettingError


@pytest.mark.property
@pytest.mark.parametrize("level", [0.0, 0.01, 0.2, 0.9])
def test_mean_and_variance_are_the_models(level: float) -> None:
    model = camera_noise(1600.0)
    values = np.full((400, 500), level, dtype=np.float32)
    noisy = add_noise(values, model, np.random.default_rng(0)).astype(np.float64)
    variance = model.shot * level + model.read
    assert noisy.mean() == pytest.approx(level, abs=5 * (variance / values.size) ** 0.5)
    assert noisy.var() == pytest.approx(variance, rel=0.02)


def test_values_below_black_collect_no_photons() -> None:
    values = np.full((8, 8), -0.1, dtype=np.float32)
    model = NoiseModel(shot=0.01, read=0.0)
    assert (add_noise(values, model, np.random.default_rng(0)) == values).all()


def test_no_noise_is_the_same_values() -> None:
    values = np.random.default_rng(1).random((300, 4), dtype=np.float32)
    found = add_noise(values, NoiseModel(shot=0.0, read=0.0), np.random.default_rng(0))
    assert (found == values).all()
    assert found is not values


@pytest.mark.parametrize("camera", CAMERAS)
def test_between_and_beyond_the_table(camera: str) -> None:
    table = CAMERAS[camera]
    for iso, (shot, read) in table.items():
        assert camera_noise(float(iso), camera) == NoiseModel(shot=shot, read=read)
    models = [camera_noise(float(iso), camera) for iso in np.geomspace(25, 25600, 60)]
    assert all(a.shot < b.shot and a.read < b.read for a, b in itertools.pairwise(models))
    beyond = camera_noise(6400.0, camera)
    assert beyond.shot == pytest.approx(2 * table[3200][0])
    assert beyond.read == pytest.approx(4 * table[3200][1])


@pytest.mark.parametrize(
    ("iso", "camera"), [(0.0, "nexus-6"), (1e9, "nexus-6"), (100.0, "brownie")]
)
def test_what_is_not_published_is_refused(iso: float, camera: str) -> None:
    with pytest.raises(SettingError, match="expected"):
        camera_noise(iso, camera)


@pytest.mark.parametrize(("shot", "read"), [(-1.0, 0.0), (0.0, 2.0), (float("nan"), 0.0)])
def test_a_noise_that_is_none_is_refused(shot: float, read: float) -> None:
    with pytest.raises(SettingError, match="S and O"):
        NoiseModel(shot=shot, read=read)
