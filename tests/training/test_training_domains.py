"""Training on linear, noisy mosaics: all of it a function of seed and step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_kit import (
    KODAK_CFA,
    equal,
    saved_run,
    soft_picture,
    tiny_net,
    tiny_patches,
    tiny_settings,
    validation,
)

from quantisp.cfa import mosaic
from quantisp.cfa.domains import rooted
from quantisp.errors import ModelError, SettingError
from quantisp.training import train
from quantisp.training.domains import VALIDATION_ISO, examples, shown, validation_input

pytestmark = pytest.mark.unit
RGB = torch.stack([soft_picture(seed, px=32) / 255.0 for seed in range(6)])


def test_srgb_mosaics_are_clean_and_the_picture_is_the_target():
    given, target = examples("srgb", RGB, KODAK_CFA, seed=0, step=0)
    assert torch.equal(given, mosaic(RGB, KODAK_CFA))
    assert target is RGB
    assert shown("srgb", RGB) is RGB


def test_linear_examples_follow_from_seed_and_step():
    one = examples("linear", RGB, KODAK_CFA, seed=3, step=7)
    assert all(map(torch.equal, one, examples("linear", RGB, KODAK_CFA, seed=3, step=7)))
    for seed, step in ((3, 8), (4, 7)):
        other = examples("linear", RGB, KODAK_CFA, seed=seed, step=step)
        assert not torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])


def test_each_worker_makes_its_part_of_the_same_batch():
    whole = examples("linear", RGB, KODAK_CFA, seed=0, step=5)
    for first in range(2):
        part = examples("linear", RGB[first::2], KODAK_CFA, seed=0, step=5, part=(first, 2))
        assert torch.equal(part[0], whole[0][first::2])
        assert torch.allclose(part[1], whole[1][first::2], atol=1e-6)


def test_a_target_is_the_clean_scene_as_it_is_shown():
    many = RGB.repeat(20, 1, 1, 1)
    given, target = examples("linear", many, KODAK_CFA, seed=0, step=0)
    assert 0.0 <= float(target.min()) <= float(target.max()) <= 1.0001
    assert float(given.max()) <= 1.0
    assert float(given.min()) < 0.0
    # Of a grey picture: the mosaic is that grey plus noise of mean zero, where nothing is clipped.
    grey = torch.full((200, 3, 16, 16), 0.5)
    given, target = examples("linear", grey, KODAK_CFA, seed=0, step=0)
    light = ((target + 0.055) / 1.055) ** 2.4
    inside = light.amax(dim=(1, 2, 3)) < 0.25
    error = (given - mosaic(light, KODAK_CFA))[inside]
    assert inside.sum() > 80
    assert abs(float(error.mean())) < 2e-3
    # Patches are of cameras and ISO of their own.
    spread = error.std(dim=(1, 2, 3))
    assert float(spread.max()) > 4.0 * float(spread.min())


def test_validation_is_at_three_iso_in_turn_and_always_the_same():
    rgb = torch.full((1, 3, 64, 64), 0.5)
    found = [validation_input("linear", rgb, KODAK_CFA, number) for number in range(6)]
    noise = [float(given.std()) for given in found]
    assert noise[0] < noise[1] < noise[2]
    assert noise[3] == pytest.approx(noise[0], rel=0.1)
    assert len(VALIDATION_ISO) == 3
    assert torch.equal(found[1], validation_input("linear", rgb, KODAK_CFA, 1))


def test_roots_are_those_of_the_same_mosaics():
    linear, target = examples("linear", RGB, KODAK_CFA, seed=0, step=0)
    root, same = examples("root", RGB, KODAK_CFA, seed=0, step=0)
    assert torch.equal(root, rooted(linear))
    assert torch.equal(target, same)
    values = torch.rand(1, 3, 8, 8)
    assert torch.allclose(shown("root", rooted(values)), shown("linear", values), atol=1e-5)


class Stopped(Exception):
    pass


def run(
    folder: Path, *, stop: int = -1, resume: bool = False, domain: str = "linear", **changes: object
) -> None:
    folder.mkdir(exist_ok=True)
    patches = tiny_patches()
    batch = patches.batch

    def stopping(*, step: int, **rest: object) -> torch.Tensor:
        if step == stop:
            raise Stopped
        return batch(step=step, **rest)  # pyright: ignore[reportArgumentType]

    patches.batch = stopping  # pyright: ignore[reportAttributeAccessIssue]
    settings = tiny_settings(domain=domain, snapshot_every=2, **changes)
    net = tiny_net(seed=99 if resume else 0)
    train(net, patches, validation(), settings, pattern=KODAK_CFA, folder=folder, resume=resume)


@pytest.mark.parametrize(("domain", "precision"), [("linear", "float32"), ("root", "bfloat16")])
def test_resuming_is_exact_in_light_too(tmp_path: Path, domain: str, precision: str):
    chosen = {"domain": domain, "precision": precision}
    run(tmp_path / "straight", **chosen)
    for stop in (6, 9, 11):
        with pytest.raises(Stopped):
            run(tmp_path / "resumed", stop=stop, resume=stop > 6, **chosen)
    run(tmp_path / "resumed", resume=True, **chosen)
    assert equal(saved_run(tmp_path / "straight"), saved_run(tmp_path / "resumed"))


def test_a_run_of_the_other_domain_is_not_resumed(tmp_path: Path):
    run(tmp_path)
    with pytest.raises(ModelError, match="domain was linear, is srgb"):
        train(
            tiny_net(),
            tiny_patches(),
            validation(),
            tiny_settings(snapshot_every=2),
            pattern=KODAK_CFA,
            folder=tmp_path,
            resume=True,
        )


def test_a_network_learns_to_remove_noise(tmp_path: Path):
    net = tiny_net()
    settings = tiny_settings(domain="linear", steps=60, validate_every=15, learning_rate=2e-3)
    curve = train(net, tiny_patches(), validation(), settings, pattern=KODAK_CFA, folder=tmp_path)
    assert curve[-1].psnr_db > curve[0].psnr_db + 2.0


def test_no_such_domain():
    with pytest.raises(SettingError, match="expected a domain of srgb, linear, root, found 'log'"):
        tiny_settings(domain="log")
