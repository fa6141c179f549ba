"""Quantization-aware fine-tuning by ``train_model``: what is kept, and a run that was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import BUILDERS, KODAK_CFA, SETTINGS, arguments, run_python, tiny_net

from quantisp.api import evaluate, find_model, load_model
from quantisp.api_fine_tuning import FineTuning
from quantisp.api_training import train_model
from quantisp.errors import ModelError, PlanError, SettingError
from quantisp.models import Provenance, model_sha256, write_model_file, zoo
from quantisp.quantization import LayerPlan, Plan, QuantizedModel

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("tiny_presets")]

PLAN = Plan.uniform(weight_bits=3, method="gptq", granularity="channel")
W3 = FineTuning(plan=PLAN, form="lsq")
TUNED = replace(SETTINGS, learning_rate=2e-3)
IN_TURN: dict[str, Any] = {
    "fine_tuning": FineTuning(plan=PLAN),
    "settings": replace(SETTINGS, steps=40, learning_rate=1e-5),
}


def write_float(path: Path, seed: int = 1) -> Path:
    provenance = Provenance(
        domain="srgb", command="", data="", date="", revision="", validation_psnr_db=""
    )
    net = tiny_net(seed)
    write_model_file(path, net, preset="tiny", pattern=KODAK_CFA, provenance=provenance)
    return path


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network to begin with."""
    return write_float(tmp_path_factory.mktemp("float") / "float.safetensors")


def tuning(data: Path, out: Path, begun: Path | None, **changes: Any) -> dict[str, Any]:
    options = {"init": begun, "settings": TUNED, "fine_tuning": W3, **changes}
    return arguments(data, out, **options)


def state(out: Path) -> dict[str, Any]:
    return torch.load(out / "checkpoint.pt", weights_only=True)


def never_stopped(data: Path, begun: Path | None, out: Path, **changes: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "BUILDERS", BUILDERS)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        train_model(**tuning(data, out, begun, **changes))
        torch.set_num_threads(threads)
    return out


@pytest.fixture(scope="module")
def straight(data: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    return never_stopped(data, begun, tmp_path_factory.mktemp("run") / "straight")


@pytest.fixture(scope="module")
def learned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float network that knows something, which a quantized one can come near."""
    settings = replace(SETTINGS, steps=150, learning_rate=1e-2, validate_every=50)
    out = tmp_path_factory.mktemp("run") / "learned"
    changes = {"settings": settings, "fine_tuning": None}
    return never_stopped(data, None, out, **changes) / "model.safetensors"


@pytest.fixture(scope="module")
def in_turn(data: Path, learned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped, which rounds one layer after the other."""
    out = tmp_path_factory.mktemp("run") / "in-turn"
    return never_stopped(data, learned, out, **IN_TURN)


def quantized(out: Path, name: str = "model.safetensors") -> QuantizedModel:
    model = load_model(out / name)
    assert isinstance(model, QuantizedModel)
    return model


def test_the_best_quantized_network_is_kept(data: Path, begun: Path, straight: Path) -> None:
    model = quantized(straight)
    assert {layer.weight_bits for layer in model.coverage.values()} == {3}
    best = max(state(straight)["curve"], key=lambda point: point["psnr_db"])
    found = find_model(straight / "model.safetensors")
    assert found.float_sha256 == model_sha256(load_model(begun))
    assert found.provenance is not None
    said = found.provenance.validation_psnr_db
    assert said == f"{best['psnr_db']:.3f} (mean of 2 pictures, step {best['step']})"
    measured = evaluate(straight / "model.safetensors", data / "val").psnr_db
    assert measured == pytest.approx(best["psnr_db"], abs=1e-6)


def test_it_is_better_than_where_it_began(data: Path, straight: Path) -> None:
    record = json.loads((straight / "training.json").read_text())["quantization"]
    start = evaluate(straight / "start.safetensors", data / "val").psnr_db
    assert record["start_psnr_db"] == pytest.approx(start, abs=1e-3)
    assert max(point["psnr_db"] for point in state(straight)["curve"]) > start
    assert (record["form"], Plan.from_json(record["plan"])) == ("lsq", W3.plan)


def test_weights_scales_and_biases_are_trained(straight: Path) -> None:
    one, other = quantized(straight), quantized(straight, "start.safetensors")
    for name in one.codes:
        # A new gate multiplies by zero, so that nothing before it has a gradient yet.
        if "gates" not in name:
            assert not torch.equal(one.scales[name], other.scales[name]), name
    assert any(not torch.equal(one.codes[n], other.codes[n]) for n in one.codes)
    biases = (dict(model.network.named_parameters())["tail.bias"] for model in (one, other))
    assert not torch.equal(*biases)


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from api_kit import SETTINGS, arguments, know_tiny_presets
from quantisp.api_fine_tuning import FineTuning
from quantisp.api_training import train_model
from quantisp.data import PatchCache
from quantisp.quantization import Plan

know_tiny_presets()
batch, data, begun, out, last = PatchCache.batch, *map(Path, sys.argv[1:4]), int(sys.argv[4])

def killed(self, *, step, patch_px, **options):
    if step == last and patch_px == SETTINGS.patch_px:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch(self, step=step, patch_px=patch_px, **options)

PatchCache.batch = killed
form, rate, steps, every = sys.argv[5], float(sys.argv[6]), *map(int, sys.argv[7:])
plan = Plan.uniform(weight_bits=3, method="gptq", granularity="channel")
tuned = {"init": begun, "fine_tuning": FineTuning(plan=plan, form=form)}
settings = replace(SETTINGS, learning_rate=rate, steps=steps, validate_every=every)
settings = replace(settings, checkpoint_every_s=1e-9)
train_model(**arguments(data, out, settings=settings, **tuned))
"""


@pytest.mark.parametrize(("last", "kept"), [(0, None), (8, 6)])
@pytest.mark.parametrize("run", ["straight", "in_turn"])
def test_a_killed_process_is_resumed_exactly(
    data: Path,
    begun: Path,
    learned: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    last: int,
    kept: int | None,
    run: str,
) -> None:
    straight: Path = request.getfixturevalue(run)
    asked = {"fine_tuning": W3, "settings": TUNED} if run == "straight" else IN_TURN
    out = tmp_path / "run"
    begun = begun if run == "straight" else learned
    form, settings = asked["fine_tuning"].form, asked["settings"]
    changed = form, settings.learning_rate, settings.steps, settings.validate_every
    ended = run_python(KILLED, data, begun, out, last, *changed)
    assert ended.returncode == -9, ended.stderr
    assert (out / "start.safetensors").exists()
    assert kept is None or state(out)["step"] == kept
    # What was rounded is there: it is not rounded again.
    layers: list[int] = []
    changes = {**asked, "resume": True, "on_layer": lambda count, _: layers.append(count)}
    train_model(**tuning(data, out, begun, **changes))
    assert layers == []
    one, other = quantized(out), quantized(straight)
    assert all(torch.equal(one.codes[n], other.codes[n]) for n in other.codes)
    assert all(torch.equal(one.scales[n], other.scales[n]) for n in other.scales)
    mine, expected = state(out), state(straight)
    for part in ("model", "averaged"):
        assert mine[part].keys() == expected[part].keys()
        assert all(torch.equal(mine[part][name], expected[part][name]) for name in expected[part])


@pytest.mark.parametrize(
    "fine_tuning",
    [
        None,
        replace(W3, form="plain"),
        FineTuning(plan=Plan.uniform(weight_bits=4, method="gptq", granularity="channel")),
    ],
)
def test_a_run_goes_on_as_the_same_run_only(
    data: Path, begun: Path, straight: Path, fine_tuning: FineTuning | None
) -> None:
    before = {p: p.read_bytes() for p in straight.iterdir() if p.is_file()}
    with pytest.raises(ModelError, match="give the same settings"):
        train_model(**tuning(data, straight, begun, resume=True, fine_tuning=fine_tuning))
    assert {p: p.read_bytes() for p in straight.iterdir() if p.is_file()} == before


def test_a_start_that_is_never_beaten_is_what_is_kept(
    data: Path, begun: Path, tmp_path: Path
) -> None:
    settings = replace(TUNED, steps=2, learning_rate=1e-12)
    curve = train_model(**tuning(data, tmp_path / "run", begun, settings=settings))
    start = quantized(tmp_path / "run", "start.safetensors")
    kept = quantized(tmp_path / "run")
    found = find_model(tmp_path / "run" / "model.safetensors").provenance
    assert found is not None
    assert found.validation_psnr_db.endswith("(before fine-tuning)")
    psnr = float(found.validation_psnr_db.split()[0])
    assert all(point.psnr_db == pytest.approx(psnr, abs=1e-3) for point in curve)
    assert all(torch.equal(kept.codes[n], start.codes[n]) for n in start.codes)


def test_layers_that_are_rounded_in_turn_beat_the_start(
    data: Path, learned: Path, in_turn: Path
) -> None:
    """Nothing is validated, and kept, before the last layer is rounded."""
    start = evaluate(in_turn / "start.safetensors", data / "val").psnr_db
    (point,) = state(in_turn)["curve"]
    assert point["step"] == IN_TURN["settings"].steps
    assert evaluate(in_turn / "model.safetensors", data / "val").psnr_db == pytest.approx(
        point["psnr_db"], abs=1e-6
    )
    assert point["psnr_db"] > start
    model = quantized(in_turn)
    assert {layer.weight_bits for layer in model.coverage.values()} == {3}
    assert model.decisions[-1] == "incremental: fine-tuned"
    # Layers in float made up for the others: they are no more the network that was begun with.
    floats, last = load_model(learned), model.network.get_submodule("fine_subnet.blocks.0.conv1")
    first = floats.get_submodule("fine_subnet.blocks.0.conv1").get_parameter("bias")
    assert not torch.equal(last.get_parameter("bias"), first)


def test_rounding_in_turn_by_several_devices_is_refused(
    data: Path, begun: Path, tmp_path: Path
) -> None:
    for changes in ({"devices": 2}, {"nodes": 2}, {"compiled": True}):
        with pytest.raises(SettingError, match="expected one device, and no --compile"):
            train_model(**tuning(data, tmp_path / "run", begun, **IN_TURN, **changes))
    assert not (tmp_path / "run").exists()


def test_a_cache_of_ones_own(data: Path, learned: Path, in_turn: Path, tmp_path: Path) -> None:
    """Then nothing else has made the folder of the run before it is rounded."""
    out = tmp_path / "folder" / "run"
    train_model(**tuning(data, out, learned, **IN_TURN, cache=tmp_path / "cache"))
    assert (tmp_path / "cache").exists()
    one, other = quantized(out), quantized(in_turn)
    assert all(torch.equal(one.codes[n], other.codes[n]) for n in other.codes)


def test_the_plain_form_and_a_mixed_plan(data: Path, begun: Path, tmp_path: Path) -> None:
    plan = Plan.uniform(weight_bits=4).with_layer("tail", LayerPlan(weight_bits=None))
    changes = {"fine_tuning": FineTuning(plan=plan, form="plain")}
    train_model(**tuning(data, tmp_path / "run", begun, **changes))
    model = quantized(tmp_path / "run")
    assert model.coverage["tail"].weight_bits is None
    assert model.scales["skip"].ndim == 0
    for name, codes in model.codes.items():
        assert int(codes.abs().max()) == 7, name


@pytest.mark.parametrize("form", ["incremental", "lsq"])
def test_activations_in_integers(
    data: Path, begun: Path, learned: Path, tmp_path: Path, form: str
) -> None:
    plan = Plan.uniform(weight_bits=4, activation_bits=5, granularity="channel")
    out, changes = tmp_path / "run", {"fine_tuning": FineTuning(plan=plan, form=form)}
    settings = replace(TUNED, steps=6, learning_rate=3e-5)
    if form == "incremental":
        begun, settings = learned, IN_TURN["settings"]
    part = replace(settings, steps=4)
    train_model(**tuning(data, out, begun, settings=part, **changes))
    train_model(**tuning(data, out, begun, settings=settings, resume=True, **changes))
    assert state(out)["step"] == settings.steps
    model, start = quantized(out), quantized(out, "start.safetensors")
    assert model.plan == plan
    assert model.activations is not None
    assert start.activations is not None
    # What is measured is the network in integers itself.
    best = evaluate(out / "model.safetensors", data / "val").psnr_db
    assert best > evaluate(out / "start.safetensors", data / "val").psnr_db


OWN = """
import torch
from quantisp.cfa import CFAPattern

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pattern = CFAPattern.named("bayer")
        self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, mosaic):
        return self.norm(self.conv(mosaic))
"""

# A norm that no layer comes before cannot be folded.
NORM_FIRST = OWN.replace("BatchNorm2d(3)", "BatchNorm2d(1)").replace(
    "self.norm(self.conv(mosaic))", "self.conv(self.norm(mosaic))"
)


def tuned_own(
    source: str, name: str, data: Path, folder: Path, tuned: FineTuning
) -> QuantizedModel:
    (folder / f"{name}.py").write_text(source)
    factory, out = f"{name}:Own", folder / "run"
    changes = {"preset": factory, "pattern": None, "fine_tuning": tuned}
    train_model(**tuning(data, out, None, settings=replace(TUNED, steps=4), **changes))
    # A run that goes on folds the same ones.
    train_model(**tuning(data, out, None, settings=replace(TUNED, steps=6), resume=True, **changes))
    assert state(out)["step"] == 6
    model = load_model(factory, out / "model.safetensors")
    assert isinstance(model, QuantizedModel)
    return model


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_batch_norms_are_folded_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation_bits: int | None
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plan = Plan.uniform(weight_bits=4, activation_bits=activation_bits, granularity="channel")
    name = f"own_in_{activation_bits}_bits"
    model = tuned_own(OWN, name, data, tmp_path, FineTuning(plan=plan))
    assert isinstance(model.network.get_submodule("norm"), torch.nn.Identity)
    assert (model.activations is None) == (activation_bits is None)


def test_a_batch_norm_that_cannot_be_folded_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    model = tuned_own(NORM_FIRST, "own_with_a_norm", data, tmp_path, W3)
    assert isinstance(model.network.get_submodule("norm"), torch.nn.BatchNorm2d)
    trained = state(tmp_path / "run")["model"]
    assert int(trained["network.norm.num_batches_tracked"]) == 6


OWN_TRANSPOSED = """
import torch
from quantisp.cfa import CFAPattern

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.pattern = CFAPattern.named("bayer")
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.wide = torch.nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2)
        self.last = torch.nn.Conv2d(6, 3, 1)

    def forward(self, mosaic):
        return self.last(self.wide(self.conv(mosaic)))
"""


def test_transposed_convolutions_of_groups_are_rounded_in_turn(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    tuned = FineTuning(plan=Plan.uniform(weight_bits=3, granularity="channel"))
    model = tuned_own(OWN_TRANSPOSED, "own_transposed", data, tmp_path, tuned)
    assert model.scales["wide"].numel() == 6


def test_an_unfolded_batch_norm_stays_as_the_teachers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its running statistics are those of the float network, whose outputs are approached."""
    monkeypatch.syspath_prepend(tmp_path)
    tuned_own(NORM_FIRST, "own_with_a_still_norm", data, tmp_path, FineTuning(plan=W3.plan))
    trained = state(tmp_path / "run")["model"]
    assert int(trained["network.norm.num_batches_tracked"]) == 0


def unknown_layer() -> FineTuning:
    return FineTuning(plan=W3.plan.with_layer("nothing", LayerPlan(weight_bits=4)))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"init": None}, SettingError, "expected a trained network to fine-tune"),
        ({"fine_tuning": unknown_layer()}, PlanError, "the plan names 'nothing'"),
        (
            {"fine_tuning": FineTuning(plan=Plan.uniform(weight_bits=None))},
            SettingError,
            "expected a layer with weight bits",
        ),
    ],
)
def test_mistakes_leave_nothing_behind(
    data: Path,
    begun: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        train_model(**tuning(data, tmp_path / "run", begun, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_network_is_no_beginning(data: Path, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a float network as --init, .* is quantized"):
        train_model(**tuning(data, tmp_path / "run", straight / "model.safetensors"))
    assert not (tmp_path / "run").exists()


def test_another_float_network_does_not_go_on(data: Path, straight: Path, tmp_path: Path) -> None:
    other = write_float(tmp_path / "other.safetensors", seed=2)
    with pytest.raises(ModelError, match="give the same settings and --init"):
        train_model(**tuning(data, straight, other, resume=True))


def test_a_form_that_there_is_not() -> None:
    with pytest.raises(
        SettingError, match="among incremental, lsq, plain, found 'pact': correct --qat"
    ):
        FineTuning(plan=W3.plan, form="pact")


def test_a_damaged_start_is_named(data: Path, begun: Path, straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    content = (straight / "start.safetensors").read_bytes()
    (out / "start.safetensors").write_bytes(content[:-50])
    with pytest.raises(ModelError, match=r"start\.safetensors is damaged"):
        train_model(**tuning(data, out, begun, resume=True))
