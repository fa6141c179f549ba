from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import BUILDERS, KODAK_CFA, SETTINGS, arguments, run_python
from PIL import Image

from quantisp.api import evaluate, load_model
from quantisp.api_training import train_model
from quantisp.cfa import CFAPattern
from quantisp.errors import ImageError, InputError, ModelError, OutputError, SettingError
from quantisp.models import read_model_file, zoo

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("tiny_presets")]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(read_model_file(out / "model.safetensors").tensors)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def state(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("run") / "straight"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "BUILDERS", BUILDERS)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        train_model(**arguments(data, out))
        torch.set_num_threads(threads)
    return out


def test_the_model_file_says_where_it_comes_from(straight: Path) -> None:
    file = read_model_file(straight / "model.safetensors")
    made = file.provenance
    assert (file.preset, file.pattern) == ("tiny", KODAK_CFA)
    assert (made.domain, made.command) == ("srgb", "quantisp train --data train")
    assert made.data == "train: 3 pictures"
    age = datetime.now().astimezone() - datetime.fromisoformat(made.date)
    assert 0 <= age.total_seconds() < 600
    assert re.fullmatch(r"\S.*", made.revision)
    assert sorted(path.name for path in straight.iterdir()) == [
        "checkpoint.pt",
        "model.safetensors",
        "tensorboard",
        "training.json",
    ]


def test_the_best_weights_are_kept(data: Path, straight: Path) -> None:
    curve = state(straight)["curve"]
    best = max(curve, key=lambda point: point["psnr_db"])
    said = read_model_file(straight / "model.safetensors").provenance.validation_psnr_db
    assert said == f"{best['psnr_db']:.3f} (mean of 2 pictures, step {best['step']})"
    found = evaluate(straight / "model.safetensors", data / "val").psnr_db
    assert found == pytest.approx(best["psnr_db"], abs=1e-6)


def test_the_model_file_can_be_loaded(straight: Path) -> None:
    net = load_model(straight / "model.safetensors")
    assert net.pattern == KODAK_CFA
    assert same(dict(net.state_dict()), weights(straight))
    assert not net.training


KILLED = """
import os, signal, sys
from pathlib import Path
from api_kit import arguments, know_tiny_presets
from quantisp.api_training import train_model
from quantisp.data import PatchCache

know_tiny_presets()
batch = PatchCache.batch

def killed(self, *, step, **options):
    if step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch(self, step=step, **options)

PatchCache.batch = killed
train_model(**arguments(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_a_killed_process_is_resumed_exactly(data: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = run_python(KILLED, data, out)
    assert ended.returncode == -9, ended.stderr
    assert state(out)["step"] == 5
    train_model(**arguments(data, out, resume=True))
    assert same(weights(out), weights(straight))
    for part in ("model", "averaged"):
        assert same(state(out)[part], state(straight)[part])
    for part in ("muon", "adamw"):
        moments, expected = (state(o)["optimizers"][part]["state"] for o in (out, straight))
        assert expected
        assert all(same(moments[index], expected[index]) for index in expected)


def test_the_seed_chooses_the_first_weights_too(data: Path, tmp_path: Path) -> None:
    runs = []
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        settings = replace(SETTINGS, steps=1, seed=seed)
        train_model(**arguments(data, tmp_path / name, settings=settings))
        runs.append(weights(tmp_path / name))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_init_begins_with_given_weights(data: Path, straight: Path, tmp_path: Path) -> None:
    still = replace(SETTINGS, steps=1, learning_rate=1e-12)
    train_model(
        **arguments(data, tmp_path / "b", settings=still, init=straight / "model.safetensors")
    )
    begun, given = weights(tmp_path / "b"), weights(straight)
    for name, value in given.items():
        torch.testing.assert_close(begun[name], value, rtol=0.0, atol=1e-9)
    train_model(**arguments(data, tmp_path / "fresh", settings=still))
    assert not same(weights(tmp_path / "fresh"), given)


def test_init_from_another_preset_is_refused(data: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ModelError, match="expected a model of the same preset in --init"):
        train_model(**arguments(data, out, init=straight / "model.safetensors", preset="other"))
    assert not out.exists()


@pytest.mark.parametrize("name", ["rgbw-sony", "bayer"])
def test_init_for_another_cfa_begins_anew_where_it_meets_the_cfa(
    data: Path, straight: Path, tmp_path: Path, name: str
) -> None:
    still = replace(SETTINGS, steps=1, learning_rate=1e-12)
    changes = {"settings": still, "pattern": CFAPattern.named(name)}
    train_model(**arguments(data, tmp_path / "b", init=straight / "model.safetensors", **changes))
    train_model(**arguments(data, tmp_path / "fresh", **changes))
    begun, given, fresh = weights(tmp_path / "b"), weights(straight), weights(tmp_path / "fresh")
    for layer, value in begun.items():
        meets_cfa = layer.partition(".")[0] in ("coarse_head", "fine_head", "skip")
        expected = fresh if meets_cfa else given
        torch.testing.assert_close(value, expected[layer], rtol=0.0, atol=1e-9)
    assert not same(fresh, {**fresh, "tail.weight": given["tail.weight"]})


def test_the_record_says_how_to_make_it_again(data: Path, straight: Path) -> None:
    record = json.loads((straight / "training.json").read_text())
    assert record["command"] == "quantisp train --data train"
    assert record["settings"] == asdict(SETTINGS)
    for part, folder in (("pictures", "train"), ("validation", "val")):
        assert [entry["name"] for entry in record[part]] == [
            path.stem for path in sorted((data / folder).iterdir())
        ]
        assert len({entry["sha256"] for entry in record[part]}) == len(record[part])
    curve = [(point["step"], round(point["psnr_db"], 4)) for point in state(straight)["curve"]]
    assert [(point["step"], point["psnr_db"]) for point in record["curve"]] == curve


def test_tensorboard_shows_the_course(straight: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(straight / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("validation/psnr_db")]
    curve = state(straight)["curve"]
    assert [step for step, _ in shown] == [point["step"] for point in curve]
    assert [value for _, value in shown] == pytest.approx([point["psnr_db"] for point in curve])
    assert {"training/loss", "training/learning_rate", "training/patches_per_s"} <= set(
        events.Tags()["scalars"]
    )


def test_a_cache_is_kept_where_it_was_asked_for(data: Path, tmp_path: Path) -> None:
    once = {"settings": replace(SETTINGS, steps=1), "cache": tmp_path / "cache"}
    train_model(**arguments(data, tmp_path / "one", **once))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(before) == 3
    read: list[int] = []
    changes = {**once, "on_read": lambda count, _total: read.append(count)}
    train_model(**arguments(data, tmp_path / "two", **changes))
    assert read == []
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


OWN = """
import torch
from quantisp.cfa import CFAPattern

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pattern = CFAPattern.named("bayer")
        self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, mosaic):
        return self.conv(mosaic)
"""


def test_a_network_of_ones_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_for_training.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    factory = "own_for_training:Own"
    arguments_of_own = arguments(data, tmp_path / "run", preset=factory, pattern=None)
    train_model(**arguments_of_own)
    trained = tmp_path / "run" / "model.safetensors"
    net = load_model(factory, trained)
    assert net.pattern == CFAPattern.named("bayer")
    assert same(dict(net.state_dict()), weights(tmp_path / "run"))
    still = {"settings": replace(SETTINGS, steps=1, learning_rate=1e-12), "init": trained}
    train_model(**{**arguments_of_own, "out": tmp_path / "more", **still})
    for name, value in weights(tmp_path / "more").items():
        torch.testing.assert_close(value, dict(net.state_dict())[name], rtol=0.0, atol=1e-9)
    with pytest.raises(ModelError, match=r"which is bayer, found rgbw-kodak: leave out --cfa"):
        train_model(**arguments(data, tmp_path / "other", preset=factory))


def fill(out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (fill, r"expected a new or empty folder, .* holds notes\.txt: pass --resume"),
        (lambda out: out.write_text("mine"), "expected a folder at .*run, found a file"),
    ],
)
def test_a_place_that_is_taken_is_refused(
    data: Path, tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(OutputError, match=message):
        train_model(**arguments(data, tmp_path / "run"))
    with pytest.raises(InputError):
        train_model(**arguments(data, tmp_path / "run" / "below", resume=True))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_finished_run_is_not_overwritten(data: Path, straight: Path) -> None:
    before = contents(straight)
    with pytest.raises(OutputError, match="pass --resume to go on"):
        train_model(**arguments(data, straight))
    assert contents(straight) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_empty_folder_will_do(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    train_model(**arguments(data, tmp_path / "run", settings=replace(SETTINGS, steps=1)))
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"resume": True}, ModelError),
        ({"preset": "unknown"}, ModelError),
        ({"init": "unknown"}, ModelError),
        ({"data": ["nowhere"]}, ImageError),
        ({"validation": ["nowhere"]}, ImageError),
        ({"settings": replace(SETTINGS, last_patch_px=512)}, ImageError),
    ],
)
def test_unusable_input_leaves_nothing_behind(
    data: Path, tmp_path: Path, changes: dict[str, Any], kind: type[InputError]
) -> None:
    with pytest.raises(kind):
        train_model(**arguments(data, tmp_path / "run", **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_validation_picture_is_refused_but_a_training_picture_is_skipped(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    out = tmp_path / "run"
    with pytest.raises(ImageError, match="bad"):
        train_model(**arguments(data, out, validation=[tmp_path / "bad.png"]))
    assert not out.exists()
    Image.new("L", (96, 96)).save(tmp_path / "grey.png")
    changes = {"data": [data / "train", tmp_path / "*.png"]}
    train_model(**arguments(data, out, settings=replace(SETTINGS, steps=1), **changes))
    assert read_model_file(out / "model.safetensors").provenance.data.endswith(": 3 pictures")
    assert "2 of 5 pictures were skipped" in caplog.text


def test_an_end_is_needed() -> None:
    with pytest.raises(SettingError, match="training needs an end"):
        replace(SETTINGS, steps=None)
