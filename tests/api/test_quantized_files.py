"""Files of quantized networks, from writing to measuring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_kit import KODAK_CFA, TINY, tiny_net, write_pictures
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from quantisp.api import evaluate, find_model, load_model, study
from quantisp.api_quantize import QuantizedFile, quantize_to_file
from quantisp.cfa import mosaic
from quantisp.errors import ImageError, InputError, ModelError, OutputError, SettingError
from quantisp.models import DePhaseNet, Provenance, model_sha256, write_model_file
from quantisp.quantization import LayerPlan, Plan, QuantizedModel, quantize

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("tiny_presets")]

PROVENANCE = Provenance(
    domain="srgb", command="train", data="", date="", revision="", validation_psnr_db=""
)
W4 = Plan.uniform(weight_bits=4, method="mse", granularity="channel")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_model_file(path, tiny_net(), preset="tiny", pattern=KODAK_CFA, provenance=PROVENANCE)
    return path


@pytest.fixture
def written(model: Path, tmp_path: Path) -> QuantizedFile:
    return quantize_to_file(model, W4, tmp_path / "new" / "w4.safetensors", command="quantisp")


def probe() -> torch.Tensor:
    return torch.rand(1, 1, 16, 20, generator=torch.Generator().manual_seed(3))


def test_the_file_gives_back_the_network(model: Path, written: QuantizedFile) -> None:
    expected = quantize(load_model(model), W4)
    found = find_model(written.path)
    network = found.model
    assert isinstance(network, QuantizedModel)
    assert all(torch.equal(network.codes[n], expected.codes[n]) for n in expected.codes)
    assert torch.equal(network(probe()), expected(probe()))
    assert (found.pattern, network.pattern, network.plan) == (KODAK_CFA, KODAK_CFA, W4)
    assert found.float_sha256 == written.float_sha256 == model_sha256(tiny_net())
    assert found.provenance is not None
    assert (found.provenance.domain, found.provenance.data) == ("srgb", "not calibrated")
    assert written.size_bytes == written.path.stat().st_size
    assert written.size_bytes < 0.5 * model.stat().st_size


def test_it_is_measured_as_a_plan_is(model: Path, written: QuantizedFile, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", count=1, px=40)
    by_file, by_plan = evaluate(written.path, pictures), evaluate(model, pictures, plan=W4)
    assert by_file.images == by_plan.images


def test_calibration_is_recorded_and_checked(model: Path, tmp_path: Path) -> None:
    plan = Plan.uniform(weight_bits=4, method="gptq", granularity="channel")
    pictures = write_pictures(tmp_path / "calibrate", count=2, px=96)
    out = tmp_path / "gptq.safetensors"
    layers: list[tuple[int, int]] = []
    quantize_to_file(
        model,
        plan,
        out,
        calibration=[pictures],
        command="quantisp",
        on_layer=lambda *counts: layers.append(counts),
    )
    provenance = find_model(out).provenance
    assert provenance is not None
    assert provenance.data == "calibrated on calibrate: 2 pictures, seed 0"
    assert layers[-1][0] == layers[-1][1] == len(layers)
    small = write_pictures(tmp_path / "small", count=1, px=40)
    with pytest.raises(ImageError, match="at least 96x96"):
        quantize_to_file(model, plan, tmp_path / "x.safetensors", calibration=[small], command="")
    assert not (tmp_path / "x.safetensors").exists()


def test_the_same_seed_gives_the_same_codes(model: Path, tmp_path: Path) -> None:
    plan = Plan.uniform(weight_bits=4, method="gptq", granularity="channel")
    pictures = write_pictures(tmp_path / "calibrate", count=2, px=120)
    codes: list[dict[str, Tensor]] = []
    for name, seed in {"default": {}, "0": {"seed": 0}, "1": {"seed": 1}, "2": {"seed": 1}}.items():
        out = tmp_path / f"{name}.safetensors"
        quantize_to_file(model, plan, out, calibration=[pictures], command="quantisp", **seed)
        found = find_model(out)
        assert found.provenance is not None
        assert found.provenance.data.endswith(f"seed {seed.get('seed', 0)}")
        assert isinstance(found.model, QuantizedModel)
        codes.append(found.model.codes)
    by_default, zero, one, again = codes
    assert all(torch.equal(by_default[name], zero[name]) for name in zero)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], zero[name]) for name in zero)


def test_a_network_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_to_quantize.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    factory, out = "own_to_quantize:Own", tmp_path / "own.safetensors"
    quantize_to_file(factory, Plan.uniform(weight_bits=4), out, command="quantisp")
    expected = quantize(load_model(factory), Plan.uniform(weight_bits=4))
    found = load_model(factory, out)
    assert torch.equal(found(probe()), expected(probe()))
    with pytest.raises(ModelError, match=f"pass --model {factory} --weights"):
        load_model(out)


OWN = """
import torch
from quantisp.cfa import CFAPattern

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.pattern = CFAPattern.named("bayer")
        self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, mosaic):
        return self.conv(mosaic)
"""


def test_a_network_without_a_cfa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = OWN.replace('        self.pattern = CFAPattern.named("bayer")\n', "")
    source = source.replace("Conv2d(1, 3", "Conv2d(3, 3")
    (tmp_path / "own_denoiser.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    factory, out = "own_denoiser:Own", tmp_path / "own.safetensors"
    pictures = write_pictures(tmp_path / "calibrate", count=1, px=96)
    plan = Plan.uniform(weight_bits=4, method="gptq", granularity="channel")
    given = {"calibration": [pictures], "command": "quantisp"}
    with pytest.raises(ModelError, match="say what it undoes with --degradation"):
        quantize_to_file(factory, plan, out, **given)
    quantize_to_file(factory, plan, out, degradation="noise:25", **given)
    found = find_model(factory, out)
    assert found.pattern is None
    assert isinstance(found.model, QuantizedModel)
    assert found.model(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)
    with pytest.raises(SettingError, match="leave out --degradation"):
        quantize_to_file(factory, W4, out, degradation="noise:25", command="quantisp")


NORMED = """
import torch
from quantisp.cfa import CFAPattern

class Normed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.pattern = CFAPattern.named("bayer")
        self.conv = torch.nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.norm.running_mean += 0.1
        self.norm.running_var *= 0.3
        self.tail = torch.nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, mosaic):
        return self.tail(torch.relu(self.norm(self.conv(mosaic))))
"""


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_batch_norms_are_folded_and_activations_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation_bits: int | None
) -> None:
    (tmp_path / "own_normed.py").write_text(NORMED)
    monkeypatch.syspath_prepend(tmp_path)
    factory, out = "own_normed:Normed", tmp_path / "own.safetensors"
    plan = Plan.uniform(
        weight_bits=8, activation_bits=activation_bits, method="mse", granularity="channel"
    )
    pictures = write_pictures(tmp_path / "measured", count=1, px=40)
    quantize_to_file(factory, plan, out, command="quantisp")
    found = find_model(factory, out).model
    assert isinstance(found, QuantizedModel)
    assert isinstance(found.network.get_submodule("norm"), torch.nn.Identity)
    assert (found.activations is None) == (activation_bits is None)
    by_plan = evaluate(factory, pictures, plan=plan)
    assert evaluate(factory, pictures, weights=out).images == by_plan.images


@pytest.mark.parametrize("folded", ["[]", '{"norm": 1}', '{"tail": "conv"}', "{"])
def test_what_was_folded_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folded: str
) -> None:
    (tmp_path / "own_normed_again.py").write_text(NORMED)
    monkeypatch.syspath_prepend(tmp_path)
    factory, out = "own_normed_again:Normed", tmp_path / "own.safetensors"
    quantize_to_file(factory, W4, out, command="quantisp")
    other = rewritten(out, lambda _, texts: texts.update(folded=folded))
    with pytest.raises(ModelError, match="is damaged or of another"):
        find_model(factory, other)


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, str]], object]) -> Path:
    with safe_open(path, framework="pt") as file:
        texts = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, texts)
    other = path.with_name("changed.safetensors")
    save_file(tensors, other, texts)
    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, texts: texts.update(schema="2"), "of schema 1, .* schema '2': update quantisp"),
        (lambda _, texts: texts.pop("schema"), "schema None"),
        (lambda _, texts: texts.pop("cfa"), "lacks or garbles 'cfa'"),
        (lambda _, texts: texts.update(preset="unknown"), "no preset is called 'unknown'"),
        (lambda _, texts: texts.update(preset="other"), "a quantized other, .* is damaged or of"),
        (lambda tensors, _: tensors.pop("scale/tail"), "lacks scale/tail"),
        (lambda tensors, _: tensors["codes/tail"].fill_(-8), "codes from -7 to 7"),
    ],
)
def test_a_damaged_file_gets_one_line(
    written: QuantizedFile,
    change: Callable[[dict[str, Any], dict[str, str]], object],
    message: str,
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(rewritten(written.path, change))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_gets_one_line(written: QuantizedFile) -> None:
    written.path.write_bytes(written.path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is damaged"):
        load_model(written.path)


def test_what_is_quantized_is_not_quantized_again(written: QuantizedFile, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", count=1, px=40)
    with pytest.raises(ModelError, match="expected a float network to study, w4 is quantized"):
        study(written.path, pictures, weight_bits=[4])
    with pytest.raises(ModelError, match="expected a float network beside a plan"):
        evaluate(written.path, pictures, plan=W4)
    with pytest.raises(ModelError, match="expected a float network to quantize"):
        quantize_to_file(written.path, W4, tmp_path / "again.safetensors", command="")


def test_a_failed_write_leaves_what_was_there(
    model: Path, written: QuantizedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        quantize_to_file(model, Plan.uniform(weight_bits=5), written.path, command="")
    assert written.path.read_bytes() == before
    assert [path.name for path in written.path.parent.iterdir()] == ["w4.safetensors"]


@pytest.mark.parametrize(
    ("out", "plan", "kind"),
    [
        ("w4.bin", W4, OutputError),
        ("tiny.safetensors", W4, OutputError),
        ("tiny.safetensors/w4.safetensors", W4, OutputError),
        ("folder.safetensors", W4, OutputError),
        ("w4.safetensors", Plan.uniform(weight_bits=None), SettingError),
        ("w4.safetensors", W4.with_layer("nothing", LayerPlan(weight_bits=4)), InputError),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    model: Path, tmp_path: Path, out: str, plan: Plan, kind: type[InputError]
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    before = model.read_bytes()
    with pytest.raises(kind):
        quantize_to_file(model, plan, tmp_path / out, command="")
    assert model.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"folder.safetensors", model.name}


def test_weights_that_look_at_inputs_need_some(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="expected no calibration"):
        quantize_to_file(model, W4, tmp_path / "x.safetensors", calibration=[tmp_path], command="")


def test_the_outputs_are_those_of_the_codes(written: QuantizedFile) -> None:
    """Against a network whose weights are put in by hand."""
    network = load_model(written.path)
    assert isinstance(network, QuantizedModel)
    by_hand = DePhaseNet(TINY, KODAK_CFA).eval()
    state = dict(tiny_net().state_dict())
    for name, codes in network.codes.items():
        scale = network.scales[name].reshape(-1, 1, 1, 1)
        state[f"{name}.weight"] = codes.float() * scale
    by_hand.load_state_dict(state)
    picture = torch.rand(1, 3, 16, 16)
    x = mosaic(picture, KODAK_CFA)
    assert torch.equal(network(x), by_hand(x))
