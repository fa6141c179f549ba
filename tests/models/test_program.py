"""``torch.export`` programs: their layers are found, and nothing in a file is executed."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import ModelError
from quantisp.models import load_program_file, model_sha256
from quantisp.quantization import Plan, find_layers, fold_batch_norms, quantize

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore")]


class Net(nn.Module):
    """Every kind of layer, and operations between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8))
        self.act = nn.PReLU(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.mix = nn.Linear(8, 12)
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y = functional.pad(x - self.mean, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1]
        y = torch.relu_(self.act(self.head(y)))
        first, second = self.up(self.depthwise(y)).chunk(2, dim=1)
        y = torch.cat([first.sigmoid(), second], 1) + y * y.mean(dim=(2, 3), keepdim=True)
        y = self.mix(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return functional.pixel_shuffle(y, 2)[:, :, : 2 * height, : 2 * width] + 0.5


def export(
    network: nn.Module, path: Path, *, dynamic: bool = True, decomposed: bool = False
) -> Path:
    example = torch.rand(2 if dynamic else 1, 3, 32, 48)
    names = [torch.export.Dim("n"), *(2 * torch.export.Dim(d, min=8, max=512) for d in "hw")]
    shapes = {0: names[0], 2: names[1], 3: names[2]} if dynamic else None
    program = torch.export.export(
        network.eval(), (example,), dynamic_shapes=None if shapes is None else (shapes,)
    )
    torch.export.save(program.run_decompositions({}) if decomposed else program, path)
    return path


@pytest.fixture(scope="module")
def net() -> nn.Module:
    network = Net()
    with torch.no_grad():
        network.head[1].running_mean.fill_(0.1)
        network.head[1].running_var.fill_(0.3)
    return network


@pytest.fixture(scope="module")
def stored(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(net, tmp_path_factory.mktemp("program") / "net.pt2")


@pytest.fixture(scope="module")
def lowered(net: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(net, tmp_path_factory.mktemp("program") / "net.pt2", decomposed=True)


@pytest.mark.parametrize("file", ["stored", "lowered"])
def test_a_program_gives_what_its_network_gives(
    net: nn.Module, request: pytest.FixtureRequest, file: str
):
    program = load_program_file(request.getfixturevalue(file)).model
    for size in ((1, 3, 32, 48), (3, 3, 18, 500)):
        picture = torch.rand(size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(program(picture), net(picture), rtol=1e-5, atol=1e-5)
            twin = copy.deepcopy(program)
            assert torch.equal(twin(picture), program(picture))


@pytest.mark.parametrize("file", ["stored", "lowered"])
def test_its_layers_can_be_quantized(net: nn.Module, request: pytest.FixtureRequest, file: str):
    loaded = load_program_file(request.getfixturevalue(file))
    kinds = {name: layer.kind for name, layer in find_layers(loaded.model).items()}
    assert kinds == {
        "head.0": "Conv2d",
        "depthwise": "Conv2d",
        "up": "ConvTranspose2d",
        "mix": "Linear",
    }
    picture = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    folding = fold_batch_norms(loaded.model, picture)
    assert dict(folding.folded) == {"head.1": "head.0"}
    plan = Plan.uniform(weight_bits=6, method="quantease-bias")
    codes = quantize(folding.network, plan, [picture]).codes
    expected = quantize(fold_batch_norms(net, picture).network, plan, [picture]).codes
    assert codes.keys() == expected.keys()
    for name, found in codes.items():
        assert float((found == expected[name]).double().mean()) > 0.99
    assert loaded.pattern is None


def test_sizes_that_it_was_not_exported_for_are_refused(
    net: nn.Module, stored: Path, tmp_path: Path
):
    loaded = load_program_file(stored)
    assert loaded.input_size is not None
    assert loaded.input_size.fixed_sizes == (None, 3, None, None)
    for size in ((1, 3, 33, 48), (1, 3, 14, 48), (1, 3, 32, 1026), (1, 1, 32, 48)):
        with pytest.raises(ModelError, match=r"16 to 1024 in steps of 2\), found"):
            loaded.model(torch.zeros(size))
    fixed = load_program_file(export(net, tmp_path / "net.pt2", dynamic=False))
    assert fixed.input_size is not None
    assert fixed.input_size.fixed_sizes == (1, 3, 32, 48)
    with pytest.raises(ModelError, match=r"\(1, 3, 32, 48\), found \(1, 3, 32, 50\)"):
        fixed.model(torch.zeros(1, 3, 32, 50))


def test_its_digest_is_of_what_it_computes(net: nn.Module, stored: Path, tmp_path: Path):
    digest = model_sha256(load_program_file(stored).model)
    assert digest == model_sha256(load_program_file(export(net, tmp_path / "again.pt2")).model)

    class Other(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.25

    other = Other()
    other.load_state_dict(net.state_dict())
    assert digest != model_sha256(load_program_file(export(other, tmp_path / "other.pt2")).model)


class Shared(nn.Module):
    """One layer used twice, a weight that no layer has, and one that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.kernel = nn.Parameter(torch.rand(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.mix(x))
        y = functional.conv2d(y, self.kernel[:, :, None, None] * 2.0)
        return torch.einsum("nchw,cd->ndhw", y, self.kernel)


def test_a_layer_used_twice_is_one_and_other_weights_are_named(tmp_path: Path):
    network = Shared()
    program = load_program_file(export(network, tmp_path / "net.pt2")).model
    picture = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(program(picture), network(picture))
    unknown = {name: layer.output_axis for name, layer in find_layers(program).items()}
    assert unknown == {"mix": 0, "": None}


def rewritten(path: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same file with other contents, by the names behind the first folder."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        names = [name.removeprefix(f"{root}/") for name in archive.namelist()]
        content = {name: archive.read(f"{root}/{name}") for name in names}
    change(content)
    writer = torch._C.PyTorchFileWriter(str(out))
    for name, data in content.items():
        if not name.startswith((".data", "byteorder")):
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return out


def edited(change: Callable[[dict[str, Any]], object], name: str) -> Callable[..., None]:
    def apply(content: dict[str, bytes]) -> None:
        document = json.loads(content[name])
        change(document)
        content[name] = json.dumps(document).encode()

    return apply


PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
CODE = "__import__('pathlib').Path({!r}).touch()"


class Payload:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


def pickled_weight(content: dict[str, bytes], code: str) -> None:
    document = json.loads(content[WEIGHTS])
    entry = document["config"]["mix.weight"]
    entry["use_pickle"] = True
    content[WEIGHTS] = json.dumps(document).encode()
    content[f"data/weights/{entry['path_name']}"] = torch_pickle(code)


def torch_pickle(code: str) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(Payload(code), buffer)
    return buffer.getvalue()


def opaque_constant(content: dict[str, bytes], code: str) -> None:
    document = json.loads(content[CONSTANTS])
    entry = next(iter(document["config"].values()))
    document["config"]["more"] = {
        **entry,
        "path_name": "opaque_obj_0",
        "use_pickle": True,
        "tensor_meta": None,
    }
    content[CONSTANTS] = json.dumps(document).encode()
    content["data/constants/opaque_obj_0"] = pickle.dumps(Payload(code))


def sample_inputs(content: dict[str, bytes], code: str) -> None:
    content["data/sample_inputs/model.pt"] = torch_pickle(code)


def old_weights(content: dict[str, bytes], code: str) -> None:
    del content[WEIGHTS]
    content["data/weights/model.pt"] = torch_pickle(code)


def guards(content: dict[str, bytes], code: str) -> None:
    edited(lambda program: program.update(guards_code=[code]), PROGRAM)(content)


def size_text(content: dict[str, bytes], code: str) -> None:
    def change(program: dict[str, Any]) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        for entry in values.values():
            for size in entry["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code

    edited(change, PROGRAM)(content)


def target(content: dict[str, bytes], code: str) -> None:
    def change(program: dict[str, Any]) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "x", "arg": {"as_string": f'python3 -c "{code}"'}, "kind": 1}]

    edited(change, PROGRAM)(content)


def file_operation(content: dict[str, bytes], code: str) -> None:
    del code

    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    edited(change, PROGRAM)(content)


ATTACKS = {
    "pickled weight": pickled_weight,
    "opaque constant": opaque_constant,
    "sample inputs": sample_inputs,
    "older format": old_weights,
    "guards": guards,
    "text of a size": size_text,
    "target": target,
    "reads a file": file_operation,
}
HARMLESS = ("sample inputs", "guards")


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_a_file_is_executed(stored: Path, tmp_path: Path, attack: str):
    marker = tmp_path / "executed"
    code = CODE.format(str(marker))
    path = rewritten(stored, tmp_path / "bad.pt2", lambda content: ATTACKS[attack](content, code))
    if attack in HARMLESS:
        # What is not needed is not looked at.
        load_program_file(path).model(torch.zeros(1, 3, 32, 48))
    else:
        with pytest.raises(ModelError) as caught:
            load_program_file(path).model(torch.zeros(1, 3, 32, 48))
        assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("attack", ["pickled weight", "sample inputs"])
def test_the_attacks_are_real(stored: Path, tmp_path: Path, attack: str):
    """PyTorch's own reader executes them."""
    marker = tmp_path / "executed"
    code = CODE.format(str(marker))
    path = rewritten(stored, tmp_path / "bad.pt2", lambda content: ATTACKS[attack](content, code))
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert marker.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle", "missing", "zip"])
def test_damaged_files_are_refused(stored: Path, tmp_path: Path, damage: str):
    path = tmp_path / "bad.pt2"
    if damage == "cut":
        path.write_bytes(stored.read_bytes()[:-3000])
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(Payload("raise SystemExit")))
    elif damage == "zip":
        torch.save({"weight": Payload("raise SystemExit")}, path)
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"no program")
    with pytest.raises(ModelError) as caught:
        load_program_file(path)
    assert "\n" not in str(caught.value)


def test_a_tensor_cannot_reach_beyond_its_numbers(stored: Path, tmp_path: Path):
    def change(document: dict[str, Any]) -> None:
        document["config"]["mix.weight"]["tensor_meta"]["strides"] = [{"as_int": 10**6}] * 2

    path = rewritten(stored, tmp_path / "bad.pt2", edited(change, WEIGHTS))
    with pytest.raises(ModelError, match="damaged"):
        load_program_file(path)


class Learns(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Spectral(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x)).real


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1.0)
        return x + 0.0 * self.count


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Learns(), r"after training|not known here"),
        (Spectral(), r"torch\.ops\.aten\.\w*fft\w*\.\w+, which is not known here"),
        (Counting(), "no buffer that changes"),
        (Two(), "one output"),
    ],
)
def test_what_cannot_be_used_is_said(network: nn.Module, message: str, tmp_path: Path):
    with pytest.raises(ModelError, match=message):
        load_program_file(export(network, tmp_path / "net.pt2"))
