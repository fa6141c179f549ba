"""Methods without training: laws that hold for every CFA, and outside oracles for Bayer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quantisp.api import find_model, load_model
from quantisp.api_quantize import quantize_to_file
from quantisp.cfa import CFAPattern, mosaic, named_patterns, parse_pattern
from quantisp.errors import ModelError, RunError
from quantisp.models import LinearFit, classical_methods, packaged_models
from quantisp.models.classical import Bilinear, GuidedResidual, Malvar, Menon
from quantisp.quantization import Plan

pytestmark = pytest.mark.unit

COLOUR = torch.tensor([0.2, 0.7, 0.4]).view(1, 3, 1, 1)
PATTERNS = [*named_patterns(), parse_pattern("CMYG"), parse_pattern("WRGB/GWBR/BGWG/RBGW")]
PHASES = ["RGGB", "BGGR", "GRBG", "GBRG"]
LIBRARY = [Malvar, Menon]


def scene(height: int = 40, width: int = 44) -> Tensor:
    """Smooth waves of all three colours, and an edge."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 11, indexing="ij")
    waves = [0.5 + 0.2 * torch.sin(x + y), 0.5 + 0.2 * torch.cos(x), 0.4 + 0.2 * torch.sin(y)]
    rgb = torch.stack(waves)[None]
    rgb[:, :, :, width // 2 :] *= 0.5
    return rgb


@pytest.mark.parametrize("kind", [Bilinear, GuidedResidual])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_flat_colour_comes_back(kind: type[nn.Module], pattern: CFAPattern):
    flat = COLOUR.expand(2, 3, 23, 27)
    assert torch.allclose(kind(pattern)(mosaic(flat, pattern)), flat, atol=2e-5)


@pytest.mark.parametrize("pattern", [parse_pattern("bayer"), parse_pattern("rgbw-kodak")], ids=str)
def test_samples_are_kept(pattern: CFAPattern):
    given = mosaic(scene(), pattern)
    restored = GuidedResidual(pattern)(given)
    assert torch.allclose(mosaic(restored, pattern), given, atol=1e-6)


@pytest.mark.parametrize("pattern", [parse_pattern("bayer"), parse_pattern("rgbw-kodak")], ids=str)
def test_residuals_are_better_than_planes_alone(pattern: CFAPattern):
    truth = scene()
    plain, guided = (
        float((kind(pattern)(mosaic(truth, pattern)) - truth).square().mean())
        for kind in (Bilinear, GuidedResidual)
    )
    assert guided < plain / 3


@pytest.mark.reference
@pytest.mark.parametrize("phase", PHASES)
def test_bilinear_is_the_librarys_inside(phase: str):
    library = pytest.importorskip("colour_demosaicing", reason="needs colour-demosaicing")
    given = torch.rand(1, 1, 16, 18, generator=torch.Generator().manual_seed(1))
    ours = Bilinear(parse_pattern(phase))(given)[0].permute(1, 2, 0).numpy()
    theirs = library.demosaicing_CFA_Bayer_bilinear(given[0, 0].numpy(), phase)
    assert np.allclose(ours[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=1e-6)


@pytest.mark.parametrize("kind", LIBRARY)
@pytest.mark.parametrize("phase", PHASES)
def test_the_librarys_borders_are_mended(kind: type[nn.Module], phase: str):
    pattern = parse_pattern(phase)
    flat = COLOUR.expand(1, 3, 17, 23)
    given = mosaic(flat, pattern)
    assert torch.allclose(kind(pattern)(given), flat, atol=1e-6)


def test_malvars_borders_are_wrong_in_the_library():
    flat = COLOUR.expand(1, 3, 17, 23)
    pattern = parse_pattern("RGGB")
    bare = Malvar(pattern).demosaic(mosaic(flat, pattern)[0, 0].double().numpy(), "RGGB")
    assert np.abs(bare - flat[0].permute(1, 2, 0).numpy()).max() > 0.02


@pytest.mark.reference
@pytest.mark.parametrize("kind", LIBRARY)
def test_inside_it_is_the_librarys(kind: type[nn.Module]):
    pattern = parse_pattern("GRBG")
    given = torch.rand(1, 1, 40, 44, generator=torch.Generator().manual_seed(1))
    network = kind(pattern)
    theirs = network.demosaic(given[0, 0].double().numpy(), "GRBG")[12:-12, 12:-12]
    assert np.allclose(network(given)[0].permute(1, 2, 0)[12:-12, 12:-12], theirs, atol=1e-6)


@pytest.mark.parametrize("tile", ["RGGB", "WRGB/GWBR"])
def test_no_other_filters_have_less_error_on_what_they_were_fitted_to(tile: str):
    pattern = parse_pattern(tile)
    pictures = torch.rand(6, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    # Blurred, so that neighbours say something of each other.
    pictures = nn.functional.avg_pool2d(pictures, 3, stride=1)
    pictures = pictures[:, :, :92, :92]
    fit = LinearFit(pattern)
    fit.add(pictures)
    filters = fit.solve()
    given = mosaic(pictures, pattern)

    def error() -> float:
        return float((filters(given) - pictures).square().double().mean())

    least = error()
    weight = filters.filters.weight
    for seed in range(3):
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 1e-3
        for sign in (1, -1):
            weight.add_(sign * change)
            assert error() > least
            weight.sub_(sign * change)


def test_too_few_pictures_fit_nothing():
    fit = LinearFit(parse_pattern("bayer"))
    fit.add(torch.rand(1, 3, 16, 16))
    with pytest.raises(RunError, match="give more or larger pictures"):
        fit.solve()


@pytest.mark.parametrize("name", ["linear-rgbw-kodak", "linear-bayer"])
def test_packaged_filters_restore_a_scene(name: str):
    found = find_model(name)
    assert found.pattern is not None
    assert found.provenance is not None
    truth = scene()
    error = (found.model(mosaic(truth, found.pattern)) - truth).square().mean()
    assert float(error) < 2e-4
    assert load_model("linear", pattern=found.pattern).pattern == found.pattern
    assert name in packaged_models()
    assert "linear" in classical_methods()


def test_methods_ask_for_their_cfa():
    with pytest.raises(ModelError, match="pass --pattern"):
        load_model("bilinear")
    with pytest.raises(ModelError, match="expected a Bayer CFA"):
        load_model("menon", pattern="rgbw-kodak")
    with pytest.raises(ModelError, match="quantisp fit --cfa x-trans"):
        load_model("linear", pattern="x-trans")
    with pytest.raises(ModelError, match="tell red, green and blue apart"):
        load_model("bilinear", pattern="RG/GR")
    with pytest.raises(ModelError, match="leave them out"):
        load_model("bilinear", "weights.safetensors", pattern="bayer")


def test_a_network_for_another_cfa_says_which_models_fit():
    with pytest.raises(ModelError) as refused:
        load_model("dephasenet-lite", pattern="bayer")
    said = str(refused.value)
    for name in ("dephasenet-lite-bayer", "linear-bayer", "bilinear", "residual", "menon"):
        assert name in said
    assert "quantisp train --cfa bayer" in said
    assert load_model("dephasenet-lite", pattern="WBWG/BWGW/WGWR/GWRW") is not None


def test_fitted_filters_are_quantized_and_come_back(tmp_path: Path):
    plan = Plan.uniform(weight_bits=9, granularity="channel")
    path = tmp_path / "quantized.safetensors"
    quantize_to_file("linear-bayer", plan, path, command="a test")
    given = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(1))
    whole, rounded = (load_model(name)(given) for name in ("linear-bayer", path))
    assert 0.0 < float((whole - rounded).abs().max()) < 0.05
