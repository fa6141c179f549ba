"""A written network is the same network; a damaged one is one clear line."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from activation_kit import Everything, noise
from safetensors.torch import load_file, save
from torch import nn

from quantisp.errors import ModelError
from quantisp.quantization import Plan, quantize
from quantisp.quantization.integer import (
    Accumulator,
    IntegerExecutor,
    IntegerNetwork,
    integer_network,
    load_integer_network,
    save_integer_network,
)
from quantisp.quantization.integer.channels import channels_of


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    torch.manual_seed(3)
    plan = Plan.uniform(weight_bits=8, activation_bits=8, granularity="channel")
    found = quantize(Everything().eval(), plan, [noise(2, 1, 16, 16)])
    return integer_network(found, Accumulator(bits=24, overflow="clamp"))


@pytest.fixture
def folder(network: IntegerNetwork, tmp_path: Path) -> Path:
    save_integer_network(tmp_path / "net", network)
    return tmp_path / "net"


def test_the_same_codes_after_writing_and_reading(network, folder):
    found = load_integer_network(folder)
    assert found.graph == network.graph
    assert (found.tie_rule, found.accumulator) == (network.tie_rule, network.accumulator)
    names = [node.name for node in network.graph.nodes]
    x = noise(1, 1, 8, 12)
    before, after = IntegerExecutor(network).run(x, names), IntegerExecutor(found).run(x, names)
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert load_integer_network(folder / "network.json").graph == network.graph


def test_writing_again_gives_the_same_bytes_and_leaves_nothing_behind(network, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_integer_network(folder, load_integer_network(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "tensors-0123.safetensors").write_bytes(b"of another network")
    save_integer_network(folder, network)
    assert len(list(folder.iterdir())) == 2


class Halves(nn.Module):
    """Takes the middle of the picture: sizes that follow from the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (2, 3), padding="same")

    def forward(self, x):
        y = self.conv(x)
        return y[:, :, : x.shape[2] // 2, x.shape[3] // 4 : 3 * x.shape[3] // 4]


def test_sizes_that_follow_from_the_pictures_survive(tmp_path):
    torch.manual_seed(0)
    plan = Plan.uniform(weight_bits=8, activation_bits=8)
    quantized = quantize(Halves().eval(), plan, [noise(1, 1, 12, 16)])
    before = integer_network(quantized)
    save_integer_network(tmp_path, before)
    after = load_integer_network(tmp_path)
    for size in ((12, 16), (9, 23)):
        x = noise(1, 1, *size)
        found = IntegerExecutor(after)(x)
        assert torch.equal(found, IntegerExecutor(before)(x))
        assert torch.equal(found, quantized.activations.double()(x.double()).float())


DAMAGE = {
    "format": (lambda d: d.update(format="other"), "has format 'other'"),
    "future": (lambda d: d.update(schema=2), "schema 2: update quantisp"),
    "schema": (lambda d: d.update(schema=True), "schema True"),
    "tie rule": (lambda d: d.update(tie_rule="down"), "a tie rule of half_up"),
    "output": (lambda d: d.update(output="nowhere"), "expected a node as the output"),
    "nodes": (lambda d: d.pop("nodes"), "no 'nodes'"),
    "no node": (lambda d: d.update(nodes=[7]), "a list of objects as nodes"),
    "kind": (lambda d: d["nodes"][1]["operation"].update(kind="Eval"), "an operation of Input"),
    "field": (lambda d: d["nodes"][2]["operation"].update(factor=0), "factor of PixelUnshuffle"),
    "no size": (
        lambda d: d["nodes"][2].update(
            operation={"kind": "Slice", "axis": 2, "start": ["%", "h", 0], "stop": None, "step": 1}
        ),
        "start of Slice",
    ),
    "more": (lambda d: d["nodes"][2]["operation"].update(code="x"), "the fields of PixelUnshuffle"),
    "order": (lambda d: d["nodes"][2].update(inputs=["conv2d"]), "that is not before it"),
    "twice": (lambda d: d["nodes"].insert(3, d["nodes"][2]), "the name of another one"),
    "bits": (lambda d: d["nodes"][3]["codes"].update(bits=17), "codes of 17 bits"),
    "limits": (lambda d: d["nodes"][3]["codes"].update(high=256), "that 8 bits do not hold"),
    "scale": (lambda d: d["nodes"][3]["codes"].update(scale=0), "a scale above 0"),
    "weight bits": (lambda d: d["nodes"][3].update(weight_bits=4), "its widths do not hold"),
    "bias bits": (lambda d: d["nodes"][3].update(bias_bits=8), "its widths do not hold"),
    "accumulator": (lambda d: d["accumulator"].update(bits=4), "accumulator bits from 8"),
    "groups": (lambda d: d["nodes"][3]["operation"].update(groups=3), "8 channels in 3 groups"),
    "size": (lambda d: d.update(size=[0, "a"]), "above 0"),
    "file": (lambda d: d["tensors"].update(file="../x"), "a file beside it"),
    "digest": (lambda d: d["tensors"].update(sha256="0"), "is not what was written"),
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_damaged_document_is_one_line(folder, name):
    change, message = DAMAGE[name]
    path = folder / "network.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=message) as found:
        load_integer_network(folder)
    assert "\n" not in str(found.value)


TENSORS = {
    "shift": (lambda t: t["conv2d/shift"].fill_(0), "shifts that are not from 1"),
    "multiplier": (lambda t: t["conv2d/multiplier"].fill_(1 << 16), "beyond 16 bits"),
    "table": (lambda t: t["silu/table"].fill_(999), "table entries beyond"),
    "tile": (lambda t: t["mul/tile"].fill_(2), "zeros and ones"),
    "bias": (lambda t: t.update({"conv2d/bias": t["conv2d/bias"][:3].clone()}), "biases of shape"),
    "kind": (lambda t: t.update({"conv2d/weight": t["conv2d/weight"].float()}), "is no tensor of"),
    "channels": (
        lambda t: t.update({"conv2d_1/weight": t["conv2d_1/weight"][:, :1].clone()}),
        "'conv2d_1' gets 8 channels, and has weights for 4",
    ),
    "missing": (lambda t: t.pop("conv2d/weight"), "no 'conv2d/weight'"),
    "more": (lambda t: t.update({"nobody/bias": t["conv2d/bias"].clone()}), "no node of the"),
}


@pytest.mark.parametrize("name", list(TENSORS))
def test_damaged_tensors_are_one_line(folder, name):
    change, message = TENSORS[name]
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    path.write_bytes(save(tensors))
    document = json.loads((folder / "network.json").read_text())
    document["tensors"]["sha256"] = sha256(path.read_bytes()).hexdigest()
    (folder / "network.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=message):
        load_integer_network(folder)


def test_channels_that_are_known_are_those_of_a_run(network):
    names = [node.name for node in network.graph.nodes]
    given = IntegerExecutor(network).run(noise(1, 1, 8, 12), names)
    known: dict[str, int | None] = {}
    for node, own in network:
        known[node.name] = channels_of(node, own, [known[name] for name in node.inputs])
        assert known[node.name] in (None, given[node.name].shape[1]), node.name
    assert sum(count is not None for count in known.values()) > 12


def test_files_that_are_none(tmp_path, folder):
    with pytest.raises(ModelError, match="cannot be read"):
        load_integer_network(tmp_path / "nothing")
    (tmp_path / "network.json").write_text("{")
    with pytest.raises(ModelError, match="is no JSON"):
        load_integer_network(tmp_path)
    (tmp_path / "network.json").write_text("[]")
    with pytest.raises(ModelError, match="has format None"):
        load_integer_network(tmp_path)
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(ModelError, match=r"is damaged .*cannot be read"):
        load_integer_network(folder)
