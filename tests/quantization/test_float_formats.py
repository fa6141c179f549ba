"""Float formats: against PyTorch's own casts and gfloat's blocks, and what they cost."""

from __future__ import annotations

import gfloat
import numpy as np
import pytest
import torch
from gfloat import formats
from torch import nn

from quantisp.errors import ModelError, SettingError
from quantisp.quantization import cast_network, format_cost, network_work
from quantisp.quantization.float_formats import WEIGHT_FORMATS, cast_weight

CASTS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8-e4m3": torch.float8_e4m3fn,
    "fp8-e5m2": torch.float8_e5m2,
}
BLOCKS = {
    "mxfp8-e4m3": formats.format_info_mxfp8_e4m3,
    "mxfp8-e5m2": formats.format_info_mxfp8_e5m2,
    "mxfp6-e2m3": formats.format_info_mxfp6_e2m3,
    "mxfp6-e3m2": formats.format_info_mxfp6_e3m2,
    "mxfp4": formats.format_info_mxfp4_e2m1,
    "mxint8": formats.format_info_mxint8,
}


def weight(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    spread = torch.randint(-12, 3, shape, generator=generator)
    return torch.randn(shape, generator=generator) * 2.0**spread


def test_every_format_has_an_oracle():
    assert set(CASTS) | set(BLOCKS) == set(WEIGHT_FORMATS)


@pytest.mark.reference
@pytest.mark.parametrize("name", CASTS)
def test_as_pytorch_casts(name: str):
    values = weight(6, 5, 3, 3)
    found = cast_weight(values, WEIGHT_FORMATS[name], 0)
    scale = torch.ones(6, 1, 1, 1, dtype=torch.float64)
    if name.startswith("fp8"):
        largest = values.abs().amax(dim=(1, 2, 3), keepdim=True).double()
        scale = (largest / torch.finfo(CASTS[name]).max).float().double()
    scaled = (values.double() / scale).float()
    assert torch.equal(found, (scaled.to(CASTS[name]).double() * scale).float())


@pytest.mark.reference
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("axis", [0, 1])
def test_as_gfloat_quantizes_blocks(name: str, axis: int):
    # 45 products each: one whole block and a shorter one.
    values = weight(3, 5, 3, 3).transpose(0, axis).contiguous()
    values[(slice(None),) * axis + (0,)] = 0.0
    found = cast_weight(values, WEIGHT_FORMATS[name], axis)
    rows = values.movedim(axis, 0).movedim(1, -1).flatten(1).double().numpy()
    expected = np.zeros_like(rows)
    for row in range(len(rows)):
        for start in (0, 32):
            block = rows[row, start : start + 32]
            expected[row, start : start + 32] = gfloat.quantize_block(
                BLOCKS[name], block, gfloat.compute_scale_amax
            )
    again = found.movedim(axis, 0).movedim(1, -1).flatten(1).double().numpy()
    np.testing.assert_array_equal(again, expected)


@pytest.mark.property
@pytest.mark.parametrize("name", WEIGHT_FORMATS)
def test_casting_twice_changes_nothing(name: str):
    once = cast_weight(weight(4, 40), WEIGHT_FORMATS[name], 0)
    assert torch.equal(cast_weight(once, WEIGHT_FORMATS[name], 0), once)


@pytest.mark.unit
def test_a_network_is_cast_and_stays_what_it_was(zoo: nn.Module):
    before = {name: value.clone() for name, value in zoo.state_dict().items()}
    cast = cast_network(zoo, "bfloat16")
    for name, value in cast.state_dict().items():
        is_weight = before[name].ndim >= 2
        expected = before[name].bfloat16().float() if is_weight else before[name]
        assert torch.equal(value, expected)
    assert all(torch.equal(before[name], value) for name, value in zoo.state_dict().items())


@pytest.mark.unit
def test_what_a_format_costs():
    model = nn.Sequential(nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 1))
    work = network_work(model, {"0": 288.0, "1": 8.0})
    # 288 weights in 3 blocks for each of 4 channels, and 8 weights in one for each of 2.
    cost = format_cost(model, "mxfp4", work)
    assert cost.mean_bits == (288 * 4 + 12 * 8 + 8 * 4 + 2 * 8) / 296
    assert cost.weight_bytes == 144 + 12 + 4 + 2
    assert cost.bops_per_px == 296 * 4 * 32
    assert format_cost(model, "fp8-e5m2", work).weight_bytes == 296 + 4 * 6
    assert format_cost(model, "float16", work).mean_bits == 16


@pytest.mark.unit
def test_bad_input(zoo: nn.Module):
    with pytest.raises(SettingError, match="expected a weight format among float16"):
        cast_network(zoo, "fp4")
    with torch.no_grad():
        next(zoo.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="finite float32 weights, layer 'head'"):
        cast_network(zoo, "float16")
