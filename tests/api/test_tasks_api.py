"""Studies of networks that undo something else than a mosaic."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import write_pictures
from PIL import Image
from torch import Tensor, nn

from quantisp.api import evaluate, study, study_with_crops
from quantisp.cfa import CFAPattern, sparse_planes
from quantisp.data import read_picture
from quantisp.errors import ImageError, InputError, ModelError, SettingError
from quantisp.evaluation import downscaled, noisy

pytestmark = pytest.mark.unit
OPTIONS: dict[str, Any] = {"weight_bits": [4, 8], "granularities": ["channel"]}


class Smoother(nn.Module):
    """A denoiser: the mean of neighbours, weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(3, 3, 3, padding=1, groups=3, padding_mode="replicate")
        kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 5.0, 2.0], [1.0, 2.0, 1.0]]) / 17.0
        self.smooth.weight.data = kernel.expand(3, 1, 3, 3).clone()
        self.smooth.bias.data.zero_()

    def forward(self, noisy: Tensor) -> Tensor:
        return self.smooth(noisy)


class Upscaler(nn.Module):
    """Repeats each pixel, with a little of its neighbours, by PixelShuffle."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Conv2d(3, 3 * factor**2, 3, padding=1, padding_mode="replicate")
        self.shuffle = nn.PixelShuffle(factor)
        with torch.no_grad():
            self.expand.weight.fill_(0.00413)
            self.expand.bias.zero_()
            for output in range(3 * factor**2):
                self.expand.weight[output, output // factor**2, 1, 1] = 0.9017

    def forward(self, small: Tensor) -> Tensor:
        return self.shuffle(self.expand(small))


class Interpolator(nn.Module):
    """A Bayer demosaicer that does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
        self.mix.weight.data.fill_(0.3)

    def forward(self, mosaic: Tensor) -> Tensor:
        return self.mix(sparse_planes(mosaic, CFAPattern.named("bayer")))


class Halves(nn.Module):
    """Fails where a size is odd."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(12, 12, 1)

    def forward(self, rgb: Tensor) -> Tensor:
        folded = nn.functional.pixel_unshuffle(rgb, 2)
        return nn.functional.pixel_shuffle(self.mix(folded), 2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("tasks") / "pictures", count=2, px=56)


def sharp_picture(path: Path, height: int, width: int) -> Path:
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(9))
    Image.fromarray(noise.to(torch.uint8).numpy()).save(path)
    return path


def psnr(restored: Tensor, truth: Tensor) -> float:
    shown = restored.clamp(0, 1).mul(255).round() / 255
    return -10 * float((shown - truth).double().square().mean().log10())


def test_a_denoiser_is_measured_on_the_same_noise_each_time(pictures: Path, tmp_path: Path):
    options = {**OPTIONS, "degradation": "noise:25"}
    study(Smoother(), pictures, out=tmp_path / "one", **options)
    result = study(Smoother(), pictures, out=tmp_path / "two", **options)
    one, two = ((tmp_path / run / "study.json").read_bytes() for run in ("one", "two"))
    assert one == two
    assert json.loads(one)["cfa"] is None
    assert json.loads(one)["protocol"]["degradation"] == "noise:25"
    assert "responses" not in result.protocol
    truth = read_picture(pictures / "picture0.png")
    given = noisy(25.0).degrade(truth.tensor(), truth.sha256())
    with torch.no_grad():
        expected = psnr(Smoother()(given), truth.tensor())
    assert result.float.images["picture0"] == pytest.approx(expected, abs=1e-3)
    assert result.rows[0].drop_db > result.rows[1].drop_db


def test_an_upscaler_gives_larger_pictures_and_crops_of_them(tmp_path: Path):
    # Odd, and larger than a tile.
    path = sharp_picture(tmp_path / "sharp.png", 141, 159)
    outcome = study_with_crops(
        Upscaler(), path, out=tmp_path / "out", degradation="downscale:2", **OPTIONS
    )
    truth = downscaled(2).whole(read_picture(path).tensor())
    with torch.no_grad():
        restored = Upscaler()(downscaled(2).degrade(truth, ""))
    expected = psnr(restored, truth)
    assert outcome.result.float.images["sharp"] == pytest.approx(expected, abs=1e-3)
    (crop,) = outcome.crops
    rows, columns = (slice(at, at + 128) for at in (crop.top, crop.left))
    shown = restored[0, :, rows, columns].clamp(0, 1).mul(255).round().to(torch.uint8)
    assert crop.panels[-1].label == "float"
    found = torch.frombuffer(bytearray(crop.panels[-1].rgb), dtype=torch.uint8)
    apart = found.int() - shown.permute(1, 2, 0).flatten().int()
    # Sums in another order may fall on the other side of a tie.
    assert int(apart.abs().max()) <= 1
    cut = truth[0, :, rows, columns].mul(255).round().to(torch.uint8)
    assert crop.truth == cut.permute(1, 2, 0).contiguous().numpy().tobytes()


@pytest.mark.parametrize(("network", "factor"), [(Smoother(), 1), (Upscaler(), 2)])
def test_pairs_give_what_the_degradation_gives(
    pictures: Path, tmp_path: Path, network: nn.Module, factor: int
):
    inputs, targets = tmp_path / "in", tmp_path / "targets"
    inputs.mkdir()
    targets.mkdir()
    for path in sorted(pictures.glob("*.png")):
        truth = read_picture(path).tensor()
        given = truth if factor == 1 else downscaled(factor).degrade(truth, "")
        samples = given[0].mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(samples).save(inputs / path.name)
        (targets / path.name).write_bytes(path.read_bytes())
    found = study(network, inputs=inputs, targets=targets, **OPTIONS)
    assert found.protocol["degradation"] == "pairs"
    if factor == 2:
        expected = study(network, pictures, degradation="downscale:2", **OPTIONS)
        assert found.float == expected.float
        assert found.rows == expected.rows
    quality = evaluate(network, inputs=inputs, targets=targets)
    assert quality.psnr_db == pytest.approx(found.float.psnr_db, abs=1e-5)


def test_other_inputs_are_another_job(pictures: Path, tmp_path: Path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for path in pictures.glob("*.png"):
        (inputs / path.name).write_bytes(path.read_bytes())
    options = {**OPTIONS, "inputs": inputs, "targets": pictures, "out": tmp_path / "out"}
    study(Smoother(), **options)
    sharp_picture(inputs / "picture0.png", 56, 56)
    with pytest.raises(InputError, match="not the same pictures"):
        study(Smoother(), **options)


def test_a_cfa_can_be_named_on_the_way(pictures: Path):
    named = study(Interpolator(), pictures, degradation="mosaic:bayer", **OPTIONS)
    network = Interpolator()
    network.pattern = CFAPattern.named("bayer")
    assert named.cfa == "bayer"
    assert named.rows == study(network, pictures, **OPTIONS).rows


@pytest.mark.parametrize(
    ("network", "degradation"), [(Smoother(), "noise:25"), (Upscaler(), "downscale:2")]
)
def test_calibration_is_degraded_as_the_pictures_are(
    pictures: Path, network: nn.Module, degradation: str, monkeypatch: pytest.MonkeyPatch
):
    from quantisp.evaluation import networks

    seen: list[Tensor] = []
    quantize = networks.quantize

    def watched(model: nn.Module, plan: object, calibration: Sequence[Tensor], **more: Any) -> Any:
        seen.extend(calibration or ())
        return quantize(model, plan, calibration, **more)

    monkeypatch.setattr(networks, "quantize", watched)
    study(network, pictures, degradation=degradation, methods=["gptq"], weight_bits=[4])
    px = 96 // (2 if degradation == "downscale:2" else 1)
    assert {tuple(x.shape) for x in seen} == {(4, 3, px, px)}
    outside = any(bool((x < 0).any()) for x in seen)
    assert outside == (degradation == "noise:25")


def bad(tmp_path: Path, pictures: Path) -> dict[str, tuple[dict[str, Any], type, str]]:
    twice, wide = tmp_path / "twice", tmp_path / "wide"
    for folder, size in ((twice, (112, 112)), (wide, (56, 70))):
        folder.mkdir()
        for path in pictures.glob("*.png"):
            sharp_picture(folder / path.name, *size)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    sharp_picture(mixed / "picture0.png", 56, 56)
    sharp_picture(mixed / "picture1.png", 112, 112)
    pair = {"images": None, "inputs": pictures}
    return {
        "nothing says what": ({}, ModelError, "say what it undoes with --degradation noise:25"),
        "no CFA": ({"degradation": "mosaic"}, SettingError, "the network names none"),
        "unknown": ({"degradation": "blur"}, SettingError, "expected a degradation among"),
        "inputs alone": (pair, SettingError, "found only --inputs: give both"),
        "pictures, too": (
            {**pair, "images": pictures, "targets": pictures},
            SettingError,
            "found --images beside them",
        ),
        "degradation, too": (
            {**pair, "targets": pictures, "degradation": "noise:25"},
            SettingError,
            "found --degradation beside them",
        ),
        "another shape": ({**pair, "targets": wide}, ImageError, "a whole number of times larger"),
        "smaller targets": (
            {"images": None, "inputs": twice, "targets": pictures},
            ImageError,
            "a whole number of times larger",
        ),
        "two factors": ({**pair, "targets": mixed}, ImageError, "the same number of times larger"),
        "larger than its output": ({**pair, "targets": twice}, ModelError, "expected RGB"),
        "no upscaler": ({"degradation": "downscale:2"}, ModelError, r"expected RGB \(1, 3, 192"),
        "no calibration": (
            {**pair, "targets": pictures, "methods": ["gptq"]},
            SettingError,
            "pass --calibration",
        ),
        "calibration is input": (
            {**pair, "targets": pictures, "methods": ["gptq"], "calibration": pictures},
            ImageError,
            "at least 96x96",
        ),
    }


BAD = (
    "nothing says what",
    "no CFA",
    "unknown",
    "inputs alone",
    "pictures, too",
    "degradation, too",
    "another shape",
    "smaller targets",
    "two factors",
    "larger than its output",
    "no upscaler",
    "no calibration",
    "calibration is input",
)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(pictures: Path, tmp_path: Path, case: str):
    changes, error, message = bad(tmp_path, pictures)[case]
    out = tmp_path / "out"
    with pytest.raises(error, match=message) as caught:
        study_with_crops(Smoother(), **{"images": pictures, **OPTIONS, "out": out, **changes})
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_calibration_picture_that_is_an_input_is_refused(tmp_path: Path):
    inputs, targets = tmp_path / "in", tmp_path / "targets"
    for folder in (inputs, targets):
        folder.mkdir()
        sharp_picture(folder / "a.png", 100, 100)
    (targets / "a.png").write_bytes(
        (write_pictures(tmp_path / "other", count=1, px=104) / "picture0.png").read_bytes()
    )
    sharp_picture(inputs / "a.png", 104, 104)
    with pytest.raises(ImageError, match="is also measured on, as a"):
        study(
            Smoother(),
            inputs=inputs,
            targets=targets,
            methods=["gptq"],
            weight_bits=[4],
            calibration=inputs,
        )


def test_a_size_that_the_network_refuses_is_found_before_anything_is_written(tmp_path: Path):
    path = sharp_picture(tmp_path / "odd.png", 201, 60)
    with pytest.raises(ModelError, match=r"\(1, 3, 137, 60\), Halves fails"):
        study(Halves(), path, degradation="noise:5", out=tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
