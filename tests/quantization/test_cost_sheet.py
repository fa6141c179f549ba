"""The cost sheet: numbers by hand, sums, and one sheet from a plan and from its integers."""

from __future__ import annotations

import pytest
import torch
from activation_kit import noise, tiny_dephasenet
from torch import nn

from quantisp.errors import ModelError, PlanError, SettingError
from quantisp.hardware import mac_cost
from quantisp.quantization import LayerPlan, Plan, capture, count_macs, network_work, quantize
from quantisp.quantization.cost_sheet import integer_sheet, network_sheet
from quantisp.quantization.integer import integer_network
from quantisp.reports.cost_sheet import SHEET_HEADINGS, cost_sheet_table, sheet_rows, sheet_totals

W8A8 = Plan.uniform(weight_bits=8, activation_bits=8, granularity="channel")


def by_hand() -> nn.Module:
    """The example of docs/costs.md."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 3, 3, padding=1),
    ).eval()


@pytest.mark.unit
def test_the_page_s_example():
    network = by_hand()
    sheet = network_sheet(capture(network, noise(1, 1, 16, 16)), network, W8A8, (30, 100))
    tensors = sheet.tensors
    assert [t.macs for t in tensors] == [0, 216_000, 1_728_000, 648_000]
    assert [t.weight_bytes for t in tensors] == [0, 104, 608, 228]
    assert [t.rows for t in tensors] == [2, 2, 2, 0]
    # k - 1 rows, times width, channels and bits.
    assert [t.buffer_bytes for t in tensors] == [250, 1600, 1600, 0]
    assert [t.map_bytes for t in tensors] == [3750, 24_000, 24_000, 9000]
    assert sheet.bops == 216_000 * 80 + (1_728_000 + 648_000) * 64 == 169_344_000
    assert (sheet.streamed_bytes, sheet.stored_bytes) == (13_690, 109_690)
    assert sheet.latency_rows == 3
    unit = mac_cost(8, 8, 72)
    assert tensors[2].mac_energy_pj == unit.energy_pj
    assert sheet.mac_area_um2 == mac_cost(8, 10, 9).area_um2


@pytest.mark.property
def test_totals_are_sums_and_macs_are_those_that_are_counted():
    network = tiny_dephasenet()
    graph = capture(network, noise(1, 1, 16, 16))
    sheet = network_sheet(graph, network, W8A8, (45, 64))
    assert (sheet.height, sheet.width) == (48, 64)
    totals = sheet.to_dict()
    for name, column in (
        ("macs", "macs"),
        ("bops", "bops"),
        ("weight_bytes", "weight_bytes"),
        ("line_buffer_bytes", "buffer_bytes"),
    ):
        assert totals[name] == sum(t[column] for t in totals["tensors"])
    counted = count_macs(network, noise(1, 1, 16, 16))
    found = {t.layer: t.macs / sheet.output_px for t in sheet.tensors if t.layer is not None}
    assert found == pytest.approx(counted)
    work = network_work(network, counted)
    assert sheet.weight_bytes == sum(
        work.layers[name].weight_bytes(W8A8.for_layer(name)) for name in counted
    )
    # Twice as wide: twice the buffers, and the same rows.
    wide = network_sheet(graph, network, W8A8, (48, 128))
    assert wide.buffer_bytes == 2 * sheet.buffer_bytes
    assert [t.rows for t in wide.tensors] == [t.rows for t in sheet.tensors]


@pytest.mark.reference
def test_the_integers_of_a_plan_cost_the_same():
    network = tiny_dephasenet()
    graph = capture(network, noise(1, 1, 16, 16))
    plan = W8A8.with_layer(
        "coarse_head", LayerPlan(weight_bits=5, activation_bits=6, granularity="channel")
    )
    integers = integer_network(quantize(network, plan, [noise(2, 1, 16, 16)]))
    wanted = network_sheet(graph, network, plan, (48, 64))
    assert integer_sheet(integers, (48, 64)) == wanted
    head = next(t for t in wanted.tensors if t.layer == "coarse_head")
    assert (head.weight_bits, head.input_bits, head.output_bits) == (5, 10, 6)


@pytest.mark.unit
def test_float_counts_as_32_bits():
    network = by_hand()
    graph = capture(network, noise(1, 1, 16, 16))
    sheet = network_sheet(graph, network, Plan.uniform(weight_bits=None), (30, 100))
    assert sheet.bops == sheet.macs * 32 * 32
    assert sheet.weight_bytes == 4 * (72 + 576 + 216)
    assert sheet.tensors[1].buffer_bytes == 2 * 100 * 8 * 4


@pytest.mark.unit
def test_the_table_shows_every_tensor_and_the_sums():
    network = by_hand()
    sheet = network_sheet(capture(network, noise(1, 1, 16, 16)), network, W8A8, (30, 100))
    rows = sheet_rows(sheet)
    assert all(len(row) == len(SHEET_HEADINGS) for row in rows)
    assert rows[-1][0] == "total"
    assert rows[-1][SHEET_HEADINGS.index("buffer kB")] == "3.5"
    assert cost_sheet_table(sheet).row_count == len(sheet.tensors) + 1
    assert sheet_totals(sheet)["frame"] == "100x30 px"


@pytest.mark.unit
@pytest.mark.parametrize("size", [(0, 8), (8, 70_000)])
def test_sizes_that_there_are_not(size):
    network = by_hand()
    graph = capture(network, noise(1, 1, 16, 16))
    with pytest.raises(SettingError, match="a height and a width from 1 to 65536"):
        network_sheet(graph, network, W8A8, size)


@pytest.mark.unit
def test_a_plan_of_another_network_is_refused():
    network = by_hand()
    graph = capture(network, noise(1, 1, 16, 16))
    with pytest.raises(PlanError, match="names 'tail'"):
        network_sheet(graph, network, W8A8.with_layer("tail", LayerPlan(weight_bits=4)), (8, 8))


class Global(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, x):
        return self.mix(x.transpose(2, 3)).transpose(2, 3)


@pytest.mark.unit
def test_a_network_that_needs_the_whole_picture_is_refused():
    torch.manual_seed(0)
    network = Global().eval()
    graph = capture(network, noise(1, 1, 8, 8))
    with pytest.raises(ModelError, match="a bounded number of others"):
        network_sheet(graph, network, W8A8, (8, 8))
