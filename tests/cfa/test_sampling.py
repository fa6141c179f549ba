from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantisp.cfa import (
    CFAPattern,
    adjoint_mosaic,
    masks,
    mosaic,
    named_patterns,
    pad_to_periods,
    responses,
    sparse_planes,
)
from quantisp.errors import PatternError

# A tile, and whether W is luma instead of the mean. The pattern itself is made in the test: its
# checked annotations draw random numbers, which hypothesis does not allow while it generates.
Spec = tuple[tuple[str, ...], bool]
LUMA = (0.299, 0.587, 0.114)


@st.composite
def random_tiles(draw: st.DrawFn) -> tuple[str, ...]:
    width = draw(st.integers(1, 7))
    rows = st.text("RGBWCMY", min_size=width, max_size=width)
    return tuple(draw(st.lists(rows, min_size=1, max_size=7)))


NAMED_TILES = [pattern.tile for pattern in named_patterns()]
specs = st.tuples(st.one_of(st.sampled_from(NAMED_TILES), random_tiles()), st.booleans())


def pattern_of(spec: Spec) -> CFAPattern:
    tile, luma = spec
    return CFAPattern(tile).with_white(LUMA) if luma else CFAPattern(tile)


# A picture need not be whole periods, nor even one.
sizes = st.tuples(st.integers(1, 25), st.integers(1, 25))


def picture(size: tuple[int, int], *, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, channels, *size, generator=generator, dtype=torch.float64)


@pytest.mark.unit
def test_each_sample_is_its_own_filters_response() -> None:
    """The definition, a pixel at a time."""
    pattern = CFAPattern.named("rgbw-kodak").with_white(LUMA)
    rgb = picture((9, 7))
    seen = mosaic(rgb, pattern)
    for y in range(9):
        for x in range(7):
            weights = pattern.response(pattern.letter(y, x))
            expected = sum(w * rgb[:, c, y, x] for c, w in enumerate(weights))
            assert torch.allclose(seen[:, 0, y, x], torch.as_tensor(expected), atol=1e-15)


@pytest.mark.property
@given(specs, sizes)
def test_masks_partition_the_grid(spec: Spec, size: tuple[int, int]) -> None:
    pattern = pattern_of(spec)
    planes = masks(pattern, *size)
    assert planes.shape == (len(pattern.letters), *size)
    assert bool((planes.sum(dim=0) == 1).all())
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
        assert pattern.letters[int(planes[:, y, x].int().argmax())] == pattern.letter(y, x)


@pytest.mark.property
@given(specs, sizes)
def test_sparse_planes_lose_nothing(spec: Spec, size: tuple[int, int]) -> None:
    pattern = pattern_of(spec)
    samples = picture(size, channels=1)
    planes = sparse_planes(samples, pattern)
    assert torch.equal(planes.sum(dim=1, keepdim=True), samples)
    assert torch.equal((planes != 0), (samples != 0) & masks(pattern, *size))


@pytest.mark.property
@given(specs, sizes)
def test_adjoint(spec: Spec, size: tuple[int, int]) -> None:
    pattern = pattern_of(spec)
    x, y = picture(size), picture(size, channels=1, seed=1)
    left = (mosaic(x, pattern) * y).sum()
    right = (x * adjoint_mosaic(y, pattern)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-13)


@pytest.mark.property
@given(specs, sizes, st.integers(0, 12), st.integers(0, 12))
def test_a_crop_moves_the_pattern(spec: Spec, size: tuple[int, int], top: int, left: int) -> None:
    pattern = pattern_of(spec)
    x = picture((size[0] + top, size[1] + left))
    cropped = mosaic(x[:, :, top:, left:], pattern.crop(top=top, left=left))
    assert torch.equal(cropped, mosaic(x, pattern)[:, :, top:, left:])


@pytest.mark.property
@given(specs, sizes, st.booleans())
def test_a_flip_flips_the_pattern(spec: Spec, size: tuple[int, int], vertical: bool) -> None:
    pattern = pattern_of(spec)
    axis = 2 if vertical else 3
    x = picture(size)
    flipped = pattern.flip(vertical=vertical, size=x.shape[axis])
    assert torch.equal(mosaic(x.flip(axis), flipped), mosaic(x, pattern).flip(axis))


@pytest.mark.unit
@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("size", [(16, 24), (17, 23)])
def test_a_flip_that_keeps_the_pattern_is_noticed(vertical: bool, size: tuple[int, int]) -> None:
    pattern, axis, x = CFAPattern.named("rgbw-kodak"), 2 if vertical else 3, picture(size)
    assert not torch.equal(mosaic(x.flip(axis), pattern), mosaic(x, pattern).flip(axis))


@pytest.mark.property
@given(specs, sizes, st.integers(0, 3))
def test_a_rotation_turns_the_pattern(
    spec: Spec, size: tuple[int, int], quarter_turns: int
) -> None:
    pattern = pattern_of(spec)
    x = picture(size)
    turned = pattern.rotate(height=size[0], width=size[1], quarter_turns=quarter_turns)
    expected = torch.rot90(mosaic(x, pattern), quarter_turns, (2, 3))
    assert torch.equal(mosaic(torch.rot90(x, quarter_turns, (2, 3)), turned), expected)


@pytest.mark.property
@given(specs, st.integers(0, 12), st.integers(0, 12), st.integers(1, 16))
def test_padding_keeps_every_sample_under_its_filter(
    spec: Spec, extra_rows: int, extra_columns: int, multiple: int
) -> None:
    pattern = pattern_of(spec)
    size = (pattern.period[0] + extra_rows, pattern.period[1] + extra_columns)
    # Constant colours: every letter has one value, so the padded mosaic must be that of a
    # larger picture of the same colours.
    colours = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).view(1, 3, 1, 1)
    samples = mosaic(colours.expand(1, 3, *size), pattern)
    padded = pad_to_periods(samples, multiple=multiple, period=pattern.period)
    height, width = padded.shape[2:]
    assert (height % multiple, width % multiple) == (0, 0)
    assert 0 <= height - size[0] < multiple
    assert 0 <= width - size[1] < multiple
    larger = colours.expand(1, 3, height, width)
    assert torch.equal(padded, mosaic(larger, pattern))
    assert torch.equal(
        sparse_planes(padded, pattern), sparse_planes(mosaic(larger, pattern), pattern)
    )


@pytest.mark.unit
def test_padding_adds_at_the_bottom_and_right_only() -> None:
    samples = picture((9, 6), channels=1)
    padded = pad_to_periods(samples, multiple=8, period=(4, 4))
    assert padded.shape == (2, 1, 16, 8)
    assert torch.equal(padded[:, :, :9, :6], samples)
    assert torch.equal(padded[:, :, 9:, :6], samples[:, :, [5, 6, 7, 8, 5, 6, 7]])
    whole = picture((16, 8), channels=1)
    assert pad_to_periods(whole, multiple=8, period=(4, 4)) is whole


@pytest.mark.unit
def test_mirroring_would_not_keep_the_phase() -> None:
    """Why padding is periodic: the twin of the law above, with torch's own reflection."""
    pattern = CFAPattern.named("rgbw-kodak")
    colours = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    mirrored = torch.nn.functional.pad(
        mosaic(colours.expand(1, 3, 9, 9), pattern), (0, 3, 0, 3), mode="reflect"
    )
    assert not torch.equal(mirrored, mosaic(colours.expand(1, 3, 12, 12), pattern))


@pytest.mark.unit
@pytest.mark.parametrize("size", [(3, 8), (8, 3), (0, 8)])
def test_less_than_a_period_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(PatternError, match=f"4x4 px, the mosaic is {size[0]}x{size[1]}") as caught:
        pad_to_periods(torch.zeros(1, 1, *size), multiple=4, period=(4, 4))
    assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_dtype_and_device_are_kept(dtype: torch.dtype, device: str) -> None:
    pattern = CFAPattern.named("rgbw-kodak")
    rgb = torch.ones(1, 3, 8, 8, dtype=dtype, device=device)
    samples = mosaic(rgb, pattern)
    for result in (
        samples,
        adjoint_mosaic(samples, pattern),
        sparse_planes(samples, pattern),
        responses(pattern, 8, 8, like=rgb),
        pad_to_periods(samples, multiple=16, period=pattern.period),
    ):
        assert result.dtype == dtype
        assert result.device.type == device


@pytest.mark.unit
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        (mosaic, torch.zeros(3, 8, 8), r"\(n, 3, h, w\), found \(3, 8, 8\)"),
        (mosaic, torch.zeros(1, 1, 8, 8), r"\(n, 3, h, w\), found \(1, 1, 8, 8\)"),
        (mosaic, torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating point, found torch.uint8"),
        (adjoint_mosaic, torch.zeros(1, 3, 8, 8), r"\(n, 1, h, w\), found \(1, 3, 8, 8\)"),
        (adjoint_mosaic, torch.zeros(1, 1, 8, 8, dtype=torch.int16), "found torch.int16"),
    ],
)
def test_what_is_not_a_picture_is_refused(
    function: Callable[[Tensor, CFAPattern], Tensor], argument: Tensor, reason: str
) -> None:
    with pytest.raises(PatternError, match=reason) as caught:
        function(argument, CFAPattern.named("bayer"))
    assert "\n" not in str(caught.value)
