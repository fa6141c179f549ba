from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import KODAK_CFA, run_python, tiny_net
from PIL import Image
from torch import Tensor, nn

import quantisp
from quantisp.api import study_with_crops
from quantisp.api_settings import whole_numbers
from quantisp.errors import (
    ImageError,
    InputError,
    ModelError,
    OutputError,
    PlanError,
    SettingError,
)
from quantisp.models import model_sha256
from quantisp.quantization import LayerPlan

pytestmark = pytest.mark.unit


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder: where we are, and where temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_study_without_out_leaves_nothing_behind(data: Path, scratch: Path) -> None:
    result = quantisp.study(tiny_net(), data / "val", weight_bits=[8, 4, 8])
    assert [(row.granularity, row.weight_bits) for row in result.rows] == [
        ("tensor", 4),
        ("tensor", 8),
        ("channel", 4),
        ("channel", 8),
    ]
    assert (result.model, result.cfa) == ("DePhaseNet", "rgbw-kodak")
    assert result.model_sha256 == model_sha256(tiny_net())
    assert os.listdir(scratch) == []


def test_a_study_that_fails_leaves_nothing_behind_either(data: Path, scratch: Path) -> None:
    class Broken(nn.Module):
        pattern = KODAK_CFA

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(1, 3, 1)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 2:
                raise RuntimeError(f"out of order at {tuple(x.shape)}")
            return self.head(x)

    with pytest.raises(RuntimeError, match="out of order"):
        quantisp.study(Broken(), data / "val", weight_bits=[8])
    assert os.listdir(scratch) == []


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(1, 1, 1), "expected RGB"),
        (nn.Conv2d(2, 3, 1), "fails on it"),
        (nn.Conv2d(1, 3, 1).double(), "expected float32 weights"),
    ],
)
def test_a_network_that_cannot_work_is_refused_before_anything_is_written(
    network: nn.Module, message: str, data: Path, tmp_path: Path
) -> None:
    network.pattern = KODAK_CFA
    with pytest.raises(ModelError, match=message):
        quantisp.study(network, data / "val", weight_bits=[8], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_with_out_writes_its_tables(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = quantisp.study(tiny_net(), [data / "val"], weight_bits=[4, 8], out=out)
    assert sorted(os.listdir(out)) == ["jobs.jsonl", "study.csv", "study.json"]
    assert (out / "study.json").read_text() == result.to_json()
    assert (out / "study.csv").read_text() == result.to_csv()
    stored = json.loads(result.to_json())
    assert stored["schema"] == 1
    assert stored["float"]["psnr_db"] == result.float.psnr_db


def test_the_network_that_was_passed_is_not_changed(data: Path) -> None:
    net = tiny_net().train()
    quantisp.study(net, data / "val", weight_bits=[4])
    quantisp.evaluate(net, data / "val")
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert model_sha256(net) == model_sha256(tiny_net())


def test_evaluate_with_a_plan(data: Path) -> None:
    net, images = tiny_net(), data / "val"
    row = quantisp.study(net, images, weight_bits=[4], granularities=["channel"]).rows[0]
    plan = quantisp.Plan.uniform(weight_bits=4, granularity="channel")
    quantized = quantisp.evaluate(net, images, plan=plan)
    assert quantized.psnr_db == pytest.approx(row.psnr_db, abs=1e-6)
    assert quantized.ssim == pytest.approx(row.ssim, abs=1e-6)
    assert {n: q.psnr_db for n, q in quantized.images.items()} == pytest.approx(
        row.images, abs=1e-6
    )
    plain = quantisp.evaluate(net, images)
    assert plain.psnr_db == pytest.approx(row.psnr_db + row.drop_db, abs=2e-6)
    assert plain.model_sha256 == quantized.model_sha256 == model_sha256(net)
    unchanged = quantisp.evaluate(net, images, plan=quantisp.Plan.uniform(weight_bits=None))
    assert unchanged == plain


def test_evaluate_refuses_a_plan_for_another_network(data: Path) -> None:
    plan = quantisp.Plan.uniform(weight_bits=4).with_layer("nowhere", LayerPlan(weight_bits=8))
    with pytest.raises(PlanError, match="the plan names 'nowhere'"):
        quantisp.evaluate(tiny_net(), data / "val", plan=plan)


def test_evaluate_reports_as_it_goes(data: Path) -> None:
    read: list[tuple[int, int]] = []
    restored: list[tuple[int, int]] = []
    quantisp.evaluate(
        tiny_net(),
        data / "val",
        on_read=lambda done, of: read.append((done, of)),
        on_progress=lambda done, of: restored.append((done, of)),
    )
    assert read == restored == [(1, 2), (2, 2)]


def small_picture(folder: Path) -> Path:
    Image.new("RGB", (31, 64)).save(folder / "small.png")
    return folder / "small.png"


def grey_picture(folder: Path) -> Path:
    Image.new("L", (64, 64)).save(folder / "grey.png")
    return folder / "grey.png"


def cmyk_picture(folder: Path) -> Path:
    Image.new("CMYK", (64, 64)).save(folder / "cmyk.jpg")
    return folder / "cmyk.jpg"


def truncated_picture(folder: Path) -> Path:
    whole = folder / "truncated.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    whole.write_bytes(whole.read_bytes()[:-600])
    return whole


@pytest.mark.parametrize("spoilt", [small_picture, grey_picture, cmyk_picture, truncated_picture])
def test_an_unusable_picture_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, spoilt: Callable[[Path], Path]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=r"expected .*: (leave it out|convert|replace)"):
        quantisp.study(tiny_net(), [data / "val", spoilt(tmp_path)], weight_bits=[4], out=out)
    assert not out.exists()


class NoPattern(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(1, 3, 1)


class NoWeights(nn.Module):
    pattern = KODAK_CFA

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


class OddWeights(NoWeights):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 4))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"within_db": -0.1}, SettingError, "0 dB or more"),
        ({"within_db": float("nan")}, SettingError, "0 dB or more"),
        ({"within_db": float("inf")}, SettingError, "0 dB or more"),
        ({"weight_bits": []}, SettingError, "at least one width"),
        ({"weight_bits": [1]}, SettingError, "2 to 16, found 1"),
        ({"weight_bits": [8, 17]}, SettingError, "2 to 16, found 17"),
        ({"weight_bits": 17}, SettingError, "2 to 16, found 17"),
        ({"methods": ["best"]}, SettingError, "best"),
        ({"granularities": ["row"]}, SettingError, "found 'row'"),
        ({"device": "abacus"}, SettingError, "'abacus' cannot be used"),
        ({"crops": ["nowhere"]}, SettingError, "found 'nowhere'"),
        ({"images": "nowhere"}, ImageError, "nothing is at nowhere"),
        ({"model": "nowhere"}, ModelError, "no packaged model is called"),
        (
            {"model": NoPattern()},
            ModelError,
            "NoPattern does not: say what it undoes",
        ),
        ({"model": NoWeights()}, PlanError, "found none"),
        ({"model": OddWeights()}, PlanError, "which no quantizer knows"),
        (
            {"model": tiny_net(), "weights": "x.safetensors"},
            ModelError,
            "and weights x.safetensors",
        ),
    ],
)
def test_unusable_input_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, changes: dict[str, Any], kind: type[InputError], message: str
) -> None:
    options: dict[str, Any] = {"model": tiny_net(), "images": data / "val", "weight_bits": [4]}
    with pytest.raises(kind, match=message):
        study_with_crops(out=tmp_path / "out", **{**options, **changes})
    assert os.listdir(tmp_path) == []


def test_one_of_a_kind_needs_no_list(data: Path) -> None:
    """A name by itself is not taken for its letters."""
    given: dict[str, Any] = {
        "weight_bits": 6,
        "methods": "mse",
        "granularities": "channel",
        "skip_layers": "tail",
    }
    found = quantisp.study(tiny_net(), data / "val", **given)
    assert [(row.method, row.granularity, row.weight_bits) for row in found.rows] == [
        ("mse", "channel", 6)
    ]
    assert [layer.name for layer in found.coverage if layer.in_float] == ["tail"]


def test_widths_of_another_kind_are_said_so() -> None:
    for widths in ([4.5], None, [None], "48"):
        with pytest.raises(SettingError, match="expected whole numbers of weight bits, found"):
            whole_numbers(widths, "weight")
    assert whole_numbers(8, "weight") == whole_numbers(range(8, 9), "weight") == {8}


def test_another_study_is_refused_before_its_tables_are_touched(data: Path, tmp_path: Path) -> None:
    quantisp.study(tiny_net(), data / "val", weight_bits=[4], out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="not the same settings"):
        quantisp.study(tiny_net(), data / "val", weight_bits=[5], out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


KILLED = """
import os, signal, sys
from pathlib import Path
from api_kit import know_tiny_presets, tiny_net
from quantisp.api import study_with_crops
from quantisp.evaluation import store

data, out, where, left = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def kill_in_time():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

class Torn(store.io.FileIO):
    def write(self, content):
        half = bytes(content)[: (len(content) + 1) // 2]
        done = super().write(half)
        if not half.endswith(b"\\n"):
            kill_in_time()
        return done

if where == "in a line":
    store.io.FileIO = Torn

know_tiny_presets()
study_with_crops(
    tiny_net(), [data / "val"], out=out, weight_bits=(4, 8),
    on_progress=lambda progress: kill_in_time() if where == "between jobs" else None,
)
"""


@pytest.mark.parametrize(("where", "count"), [("between jobs", 5), ("in a line", 30)])
def test_a_killed_process_leaves_a_study_that_goes_on(
    data: Path, tmp_path: Path, where: str, count: int
) -> None:
    options: dict[str, Any] = {"weight_bits": (4, 8)}
    study_with_crops(tiny_net(), [data / "val"], out=tmp_path / "straight", **options)
    ended = run_python(KILLED, data, tmp_path / "killed", where, count)
    assert ended.returncode == -9, ended.stderr
    jobs = (tmp_path / "killed" / "jobs.jsonl").read_bytes()
    assert jobs.endswith(b"\n") == (where == "between jobs")
    assert 0 < jobs.count(b"\n") - 1 < 10
    assert not (tmp_path / "killed" / "study.json").exists()
    study_with_crops(tiny_net(), [data / "val"], out=tmp_path / "killed", **options)
    for name in ("study.json", "study.csv"):
        straight, resumed = (tmp_path / run / name for run in ("straight", "killed"))
        assert straight.read_bytes() == resumed.read_bytes()
    assert sorted(os.listdir(tmp_path / "killed")) == ["jobs.jsonl", "study.csv", "study.json"]
