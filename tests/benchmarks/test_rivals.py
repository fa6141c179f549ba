"""The benchmark against other toolkits: what it counts, its twin, and toolkits that fail."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import nn

from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import find_images
from quantisp.evaluation import survey
from quantisp.evaluation.degradation import mosaicked
from quantisp.models import DePhaseNet, DePhaseNetConfig

pytestmark = pytest.mark.unit

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))

from rivals.bench import Bench  # noqa: E402
from rivals.entries import ENTRIES, FORMATS, Entry  # noqa: E402
from rivals.grid import distinct_levels, even_levels  # noqa: E402
from rivals.measuring import grid_of, with_weights  # noqa: E402
from rivals.rows import Asked, Row, measure_row, read_record, rows_of  # noqa: E402
from rivals.rows import _measure_and_write as measure_and_write  # noqa: E402
from rivals.table import table  # noqa: E402
from rivals.task import Outcome  # noqa: E402
from rivals.twin import TOLERANCE, Twin, twin_error  # noqa: E402

ASKED = Asked(model="", images=(), calibration=(), seed=0, threads=1, iterations={})
TINY = DePhaseNetConfig(fine_channels=4, fine_blocks=2, coarse_channels=8, coarse_blocks=2)


def tiny_network() -> DePhaseNet:
    torch.manual_seed(0)
    network = DePhaseNet(TINY, CFAPattern.named("rgbw-kodak")).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(0.2 * torch.randn_like(parameter))
    return network


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Small enough to be measured in a moment, in the place of what a command reads."""
    torch.manual_seed(1)
    pixels = (torch.rand(40, 40, 3) * 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    network = tiny_network()
    found = Bench(
        network=network,
        state={name: value.clone() for name, value in network.state_dict().items()},
        mosaics=tuple(mosaic(torch.rand(2, 3, 24, 24), network.pattern) for _ in range(2)),
        pictures=survey(find_images([tmp_path / "noise.png"]), mosaicked(network.pattern)),
        twin_error=0.0,
        seed=0,
    )
    monkeypatch.setattr(Bench, "of", lambda _asked: found)
    return found


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("zero_point", [0, 3])
def test_codes_times_a_scale_lie_on_a_grid(bits: int, zero_point: int):
    torch.manual_seed(bits)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (6, 5, 3, 3))
    weight = (codes - zero_point) * (0.01 + torch.rand(6, 1, 1, 1))
    assert distinct_levels(weight) <= even_levels(weight, 2**bits) <= 2**bits


def test_a_grid_with_gaps_counts_the_codes_between():
    weight = 0.3 * torch.tensor([[-7.0, -2.0, 3.0, 5.0]])
    assert (distinct_levels(weight), even_levels(weight, 16)) == (4, 13)
    assert even_levels(weight, 12) == 13


def test_the_worst_channel_counts():
    weight = torch.stack([torch.ones(20), torch.arange(20.0)])
    assert distinct_levels(weight) == even_levels(weight, 32) == 20
    assert distinct_levels(weight.T, axis=1) == 20


@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(torch.randn(2, 40, generator=torch.Generator().manual_seed(0)), id="float"),
        pytest.param(torch.arange(17.0)[None], id="one-level-too-many"),
        pytest.param(torch.tensor([[0.0, 1, 2, 4, 8, 16, 32, 64]]), id="powers-of-two"),
    ],
)
def test_what_is_no_4_bit_grid_is_found_out(weight: torch.Tensor):
    assert even_levels(weight, 16) == 17


def test_the_twin_gives_the_networks_outputs_at_any_size():
    network = tiny_network()
    inputs = [torch.rand(1, 1, 24, 16), torch.rand(2, 1, 13, 18)]
    assert twin_error(network, Twin(network), inputs) <= TOLERANCE


def test_a_twin_that_differs_is_found_out():
    network, other = tiny_network(), tiny_network()
    other.get_submodule("fine_subnet.gates.1.squeeze").weight.mul_(1.01)
    assert twin_error(network, Twin(other), [torch.rand(1, 1, 24, 16)]) > TOLERANCE


def test_weights_off_the_grid_and_layers_left_alone_are_named():
    network = tiny_network()
    on_grid = torch.round(network.skip.weight).clamp(-7, 7) * 0.5
    weights = {"skip": (on_grid, None), "tail": (network.tail.weight.clone(), None)}
    grid = grid_of(network, Outcome(weights=weights, network=None, settings=""), 4)
    assert (grid.layers, grid.off_grid) == (1, ("tail",))
    assert "coarse_head" in grid.float_layers


def test_weights_of_another_shape_are_refused():
    network = tiny_network()
    with pytest.raises(ValueError, match=r"tail\.weight is"):
        with_weights(network, {"tail": (network.skip.weight, None)})


def test_a_row_of_ours_is_measured(bench: Bench, tmp_path: Path):
    entry = next(e for e in ENTRIES if e.name == "quantisp-rtn")
    measure_and_write(Row(entry=entry, format="W4"), ASKED, tmp_path / "row.json")
    record = read_record(tmp_path / "row.json")
    layers = sum(isinstance(m, nn.Conv2d) for m in bench.network.modules())
    assert (record["layers"], record["off_grid"], record["float_layers"]) == (layers, [], [])
    assert record["even_levels"] <= 15
    assert record["drop_db"] == pytest.approx(record["float_psnr_db"] - record["psnr_db"])


@pytest.mark.usefixtures("bench")
def test_a_toolkit_that_is_missing_costs_its_own_row(tmp_path: Path):
    entry = Entry(toolkit="absent", method="x", module="absent", function="x", packages=("absent",))
    measure_and_write(Row(entry=entry, format="W8"), ASKED, tmp_path / "row.json")
    record = read_record(tmp_path / "row.json")
    assert record["error"] == "ModuleNotFoundError / No module named 'rivals.absent'"
    assert record["versions"] == {"absent": None}
    assert "| W8 | absent | x | ModuleNotFoundError" in table([record])


def test_a_toolkit_that_changes_the_float_network_is_found_out(bench: Bench, tmp_path: Path):
    entry = next(e for e in ENTRIES if e.name == "quantisp-rtn")
    bench.state["tail.bias"].add_(1.0)
    measure_and_write(Row(entry=entry, format="W8"), ASKED, tmp_path / "row.json")
    assert "tail.bias is not" in read_record(tmp_path / "row.json")["error"]


def test_a_row_that_takes_too_long_is_given_up(tmp_path: Path):
    row = Row(entry=ENTRIES[0], format="W4")
    record = measure_row(row, ASKED, tmp_path / "row.json", limit_minutes=0.0)
    assert record["error"] == "given up after 0 minutes"


NEEDS = {
    # The examples of Brevitas ask for more than Brevitas itself does.
    "brevitas": ("brevitas_examples", "tqdm", "accelerate"),
    "mct": ("model_compression_toolkit", "torchvision"),
    "aimet": ("aimet_torch", "torchvision"),
    "torchao": ("torchao",),
}
OTHERS = [
    Row(entry=entry, format=format_name)
    for entry in ENTRIES
    for format_name in dict.fromkeys((entry.formats[0], entry.formats[-1]))
    if entry.toolkit in NEEDS
]


@pytest.mark.reference
@pytest.mark.usefixtures("bench")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.name)
def test_a_toolkit_quantizes_every_layer(row: Row, tmp_path: Path):
    missing = [p for p in NEEDS[row.entry.toolkit] if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: see benchmarks/rivals-requirements.txt")
    few = replace(ASKED, iterations={row.entry.name: 2})
    measure_and_write(row, few, tmp_path / "row.json")
    record = read_record(tmp_path / "row.json")
    assert "error" not in record, record["traceback"]
    assert (record["off_grid"], record["float_layers"]) == ([], [])
    bits = 8 if "mixed" in row.entry.method else FORMATS[row.format][0]
    assert record["even_levels"] <= 2**bits


def record_of(toolkit: str, method: str, psnr_db: float) -> dict[str, object]:
    return {
        "toolkit": toolkit,
        "method": method,
        "format": "W4",
        "float_psnr_db": 41.0,
        "psnr_db": psnr_db,
        "drop_db": 41.0 - psnr_db,
        "worst_image_drop_db": 2.0,
        "psnr_to_float_db": 40.0,
        "cpu_minutes": 1.25,
        "share_of_iterations": 0.1,
        "even_levels": 16,
        "off_grid": ["tail"],
        "float_layers": [],
    }


def test_the_table_says_who_is_ahead_and_what_is_not_what_it_should_be():
    ours = record_of("quantisp", "auto", 40.0)
    text = table([ours, record_of("brevitas", "gptq", 39.0), record_of("mct", "gptq", 40.5)])
    assert "- mct gptq is 0.500 dB ahead of quantisp auto at W4" in text
    assert "brevitas gptq is" not in text
    assert text.count("16, 1 layers not") == 3
    assert "10.00%" in text
    assert "No other toolkit is ahead" in table([ours, record_of("brevitas", "gptq", 39.0)])


def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rivals_command", FOLDER / "rivals.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_entry_can_be_chosen_by_name():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    parsed = command()._parser().parse_args(["--out", "x", "--only", *names])
    assert parsed.only == names
    rows = rows_of(ENTRIES, tuple(FORMATS))
    assert len({row.name for row in rows}) == len(rows)


@pytest.mark.parametrize("wrong", ["brevitas-gptq=3", "aimet-adaround", "aimet-adaround=0"])
def test_iterations_that_mean_nothing_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        command()._parser().parse_args(["--out", "x", "--iterations", wrong])
    assert "expected" in capsys.readouterr().err
