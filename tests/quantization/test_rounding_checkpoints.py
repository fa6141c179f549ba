"""A rounding that was killed goes on from its last part, to the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quantisp.errors import ModelError
from quantisp.quantization import (
    Checkpoints,
    Plan,
    QuantizedModel,
    checkpoints,
    curvature,
    quantize,
)
from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.methods import adaround, brecq, incremental


class Killed(BaseException):
    pass


class Net(nn.Module):
    """Plain, grouped and transposed convolutions, with a layer between whose weight comes twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.again = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.again.weight = self.twice.weight
        self.mix = nn.Conv2d(8, 8, 1, bias=False)
        self.up = nn.ConvTranspose2d(8, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.head(x))
        return self.up(self.mix(x + self.again(torch.relu(self.twice(x)))))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And one thread, for the network is too small for two."""
    for module, name, value in (
        (incremental, "STEPS", 24),
        (brecq, "STEPS", 8),
        (adaround, "STEPS", 8),
        (curvature, "PROBES", 8),
    ):
        monkeypatch.setattr(module, name, value)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def net() -> nn.Module:
    return Net().eval()


@pytest.fixture
def inputs() -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.rand(2, 1, 24, 20, generator=draw) for _ in range(8)]


def quantized(
    net: nn.Module, method: str, inputs: list[Tensor], kept: Checkpoints | None = None
) -> QuantizedModel:
    plan = Plan.uniform(weight_bits=4, method=method, granularity="channel")
    return quantize(net, plan, inputs, checkpoints=kept)


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were kept."""
    names: list[str] = []
    genuine = Checkpoints.put

    def counted(self: Checkpoints, name: str, tensors: Mapping[str, Tensor]) -> None:
        genuine(self, name, tensors)
        if self.folder is not None:
            names.append(self.prefix + name)

    monkeypatch.setattr(Checkpoints, "put", counted)
    return names


def kill_after_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Checkpoints.put

    def dies(self: Checkpoints, name: str, tensors: Mapping[str, Tensor]) -> None:
        genuine(self, name, tensors)
        if self.folder is not None:
            raise Killed

    monkeypatch.setattr(Checkpoints, "put", dies)


@pytest.mark.unit
@pytest.mark.parametrize("method", ["gptq", "adaround", "yaqa", "brecq", "incremental", "auto"])
def test_killed_after_every_part(
    net: nn.Module,
    inputs: list[Tensor],
    tmp_path: Path,
    puts: list[str],
    method: str,
) -> None:
    kept = Checkpoints(tmp_path / "parts", "this one")
    straight = quantized(net, method, inputs, Checkpoints(tmp_path / "straight"))
    assert puts
    parts, puts[:] = list(puts), []
    with pytest.MonkeyPatch.context() as patch:
        kill_after_each_part(patch)
        for _ in parts:
            with pytest.raises(Killed):
                quantized(net, method, inputs, kept)
    # Each part was made once, in its order.
    assert puts == parts
    resumed = quantized(net, method, inputs, kept)
    assert puts == parts
    state, again = straight.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert all(torch.equal(straight.codes[n], resumed.codes[n]) for n in straight.codes)
    assert all(torch.equal(straight.scales[n], resumed.scales[n]) for n in straight.scales)
    assert straight.decisions == resumed.decisions


@pytest.mark.unit
def test_incremental_rounding_is_kept_stage_by_stage(
    net: nn.Module, inputs: list[Tensor], tmp_path: Path, puts: list[str]
) -> None:
    quantized(net, "incremental", inputs, Checkpoints(tmp_path))
    assert puts[:2] == ["curvatures", "errors alone"]
    assert set(puts[2:]) == {"descent"}
    assert len(puts) >= 5


@pytest.mark.unit
def test_what_another_rounding_left_is_not_taken(tmp_path: Path) -> None:
    one, other = (Checkpoints(tmp_path / "parts", text) for text in ("one", "other"))
    one.put("a", {"x": torch.ones(2)})
    assert other.get("a") is None
    other.put("b", {"x": torch.zeros(2)})
    assert one.get("a") is None
    found = other.get("b")
    assert found is not None
    assert torch.equal(found["x"], torch.zeros(2))
    assert other.get("a") is None
    assert len(list((tmp_path / "parts").iterdir())) == 2


@pytest.mark.unit
@pytest.mark.parametrize("harm", ["torn", "empty", "gone", "a folder", "no strides"])
def test_a_damaged_part_is_made_again(
    net: nn.Module, inputs: list[Tensor], tmp_path: Path, harm: str
) -> None:
    kept = Checkpoints(tmp_path / "parts", "this one")
    straight = quantized(net, "gptq", inputs, kept)
    for path in (tmp_path / "parts").glob("*.safetensors"):
        content = path.read_bytes()
        path.unlink()
        if harm == "torn":
            path.write_bytes(content[:-3])
        elif harm == "empty":
            path.touch()
        elif harm == "a folder":
            path.mkdir()
        elif harm == "no strides":
            path.write_bytes(checkpoints.save({"codes": torch.zeros(2)}))
    if harm == "a folder":
        for path in (tmp_path / "parts").glob("*.safetensors"):
            assert kept.get("layer head") is None
            path.rmdir()
    again = quantized(net, "gptq", inputs, kept)
    assert all(torch.equal(straight.codes[n], again.codes[n]) for n in straight.codes)


@pytest.mark.unit
def test_tensors_come_back_as_they_lay_in_memory(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "parts")
    values = {
        "plain": torch.rand(2, 3, 4, 5),
        "last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "turned": torch.rand(4, 5).T,
        "number": torch.tensor(7),
        "codes": torch.arange(6, dtype=torch.int32).reshape(2, 3),
        "with a/slash": torch.rand(3, dtype=torch.float64),
    }
    kept.under("a").put("b", values)
    found = kept.under("a").get("b")
    assert found is not None
    assert kept.get("b") is None
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert torch.equal(found[name], value)
        assert (found[name].dtype, found[name].stride()) == (value.dtype, value.stride())


@pytest.mark.unit
@pytest.mark.parametrize(("axis", "groups"), [(None, 1), (0, 1), (1, 2)])
def test_a_weight_comes_back(tmp_path: Path, axis: int | None, groups: int) -> None:
    kept = Checkpoints(tmp_path / "parts")
    shape = (4, 3, 2, 2)
    scale = torch.tensor(0.5) if axis is None else torch.rand(groups * shape[axis])
    codes = torch.randint(-7, 8, shape, dtype=torch.int32)
    weight = QuantizedWeight(codes=codes, scale=scale, axis=axis, groups=groups)
    kept.put_weight("one", weight, None)
    kept.put_weight("two", weight, torch.ones(3))
    for name, bias in (("one", None), ("two", torch.ones(3))):
        found = kept.get_weight(name)
        assert found is not None
        assert torch.equal(found[0].dequantize(), weight.dequantize())
        assert (found[0].axis, found[0].groups) == (axis, groups)
        assert (found[1] is None) == (bias is None)
    assert kept.get_weight("three") is None


@pytest.mark.unit
def test_they_go_when_the_rounding_is_done_or_failed_but_not_when_it_was_killed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "parts"
    for failure, stays in ((None, False), (ModelError("x"), False), (Killed(), True)):
        kept = Checkpoints(folder, "this one")
        try:
            with kept.until_done():
                kept.put("a", {"x": torch.ones(1)})
                if failure is not None:
                    raise failure
        except (ModelError, Killed):
            pass
        assert folder.exists() == stays


@pytest.mark.unit
def test_without_a_folder_nothing_is_kept() -> None:
    kept = Checkpoints()
    kept.put("a", {"x": torch.ones(1)})
    assert kept.get("a") is None
    kept.remove()
