from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantisp.cfa import CFAPattern, named_patterns, parse_pattern
from quantisp.errors import PatternError

# DESIGN section 4, row by row; the larger Bayer tiles written out.
TILES = {
    "rgbw-kodak": "WBWG BWGW WGWR GWRW",
    "rgbw-mipi": "GWBW WGWB RWGW WRWG",
    "rgbw-sony": "WBWG RWGW WGWB GWRW",
    "rgbw-yamagami": "BWRW WGWG RWBW WGWG",
    "rgbw-gindele": "GR BW",
    "rgbw-aptina": "RW WB",
    "bayer": "RG GB",
    "quad-bayer": "RRGG RRGG GGBB GGBB",
    "nona-bayer": "RRRGGG RRRGGG RRRGGG GGGBBB GGGBBB GGGBBB",
    # G at 20 of 36 sites, R and B at 8 each; each row and column holds all three.
    "x-trans": "GBGGRG RGRBGB GBGGRG GRGGBG BGBRGR GRGGBG",
}


@pytest.mark.golden
def test_named_tiles_are_those_of_the_literature() -> None:
    assert {p.name: " ".join(p.tile) for p in named_patterns()} == TILES


@pytest.mark.unit
def test_x_trans_has_its_known_statistics() -> None:
    tile = CFAPattern.named("x-trans").tile
    assert [sum(row.count(c) for row in tile) for c in "RGB"] == [8, 20, 8]
    columns = ["".join(column) for column in zip(*tile, strict=True)]
    assert all(set(line) == set("RGB") for line in (*tile, *columns))


@pytest.mark.unit
def test_letters_come_in_a_fixed_order() -> None:
    assert CFAPattern.named("rgbw-kodak").letters == ("R", "G", "B", "W")
    assert CFAPattern(("YW", "CM", "BG")).letters == ("G", "B", "W", "C", "M", "Y")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "tile"),
    [
        ("rgbw-kodak", ("WBWG", "BWGW", "WGWR", "GWRW")),
        ("WBWG BWGW WGWR GWRW", ("WBWG", "BWGW", "WGWR", "GWRW")),
        ("WBWG/BWGW/WGWR/GWRW", ("WBWG", "BWGW", "WGWR", "GWRW")),
        ("RGGB", ("RG", "GB")),
        ("grbg", ("GR", "BG")),
        ("rgbw", ("RG", "BW")),
        ("RG/GB", ("RG", "GB")),
        ("R/G/B", ("R", "G", "B")),
        ("RGB/", ("RGB",)),
    ],
)
def test_parse_accepts(text: str, tile: tuple[str, ...]) -> None:
    assert parse_pattern(text).tile == tile


@pytest.mark.unit
@pytest.mark.parametrize(("text", "name"), [("RGGB", "bayer"), ("gr/bw", "rgbw-gindele")])
def test_parse_recognises(text: str, name: str) -> None:
    assert parse_pattern(text).name == name


@pytest.mark.unit
@pytest.mark.parametrize("name", TILES)
def test_parse_reads_back_what_str_writes(name: str) -> None:
    pattern = CFAPattern.named(name)
    assert parse_pattern(str(pattern)) == pattern
    shifted = pattern.crop(top=1, left=0)
    assert parse_pattern(str(shifted)) == shifted


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no CFA is called ''"),
        ("/", "no CFA is called"),
        ("bayer-bggr", "choose one of rgbw-kodak"),
        ("BG\nRG", "no CFA is called"),
        ("RGX/GBR", "found 'X'"),
        ("RG/G", "equal length, found RG/G"),
        ("RG1B", "no CFA is called"),
        ("/".join(["RG"] * 17), "16 px at most, this one is 17x2"),
        ("RG" * 9 + "/" + "GB" * 9, "16 px at most, this one is 2x18"),
    ],
)
def test_parse_refuses_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(PatternError, match=reason) as caught:
        parse_pattern(text)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize("tile", [(), ("",), ("RG", "GBR"), ("RG", ""), ("rg", "gb")])
def test_a_tile_that_is_not_one_is_refused(tile: tuple[str, ...]) -> None:
    with pytest.raises(PatternError) as caught:
        CFAPattern(tile)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_equality_is_of_tile_and_responses_not_of_names() -> None:
    bayer = CFAPattern.named("bayer")
    assert CFAPattern(("RG", "GB"), name="mine") == bayer
    assert hash(CFAPattern(("RG", "GB"), name="mine")) == hash(bayer)
    assert CFAPattern(("GR", "BG")) != bayer
    # Responses that repeat the defaults, or are of letters that do not occur, say nothing.
    assert CFAPattern(("RG", "GB"), responses=(("R", (1.0, 0.0, 0.0)), ("W", (0.5,) * 3))) == bayer


@pytest.mark.unit
def test_with_white_changes_w_alone() -> None:
    kodak = CFAPattern.named("rgbw-kodak")
    weights = (0.299, 0.587, 0.114)
    changed = kodak.with_white(weights)
    assert changed.tile == kodak.tile
    assert changed.response("W") == weights
    assert [changed.response(c) for c in "RGB"] == [kodak.response(c) for c in "RGB"]
    assert changed != kodak
    assert changed.name != kodak.name
    assert changed.crop(top=3, left=1).response("W") == weights
    assert changed.with_white((1 / 3, 1 / 3, 1 / 3)) == kodak
    assert CFAPattern.named("bayer").with_white(weights) == CFAPattern.named("bayer")


@pytest.mark.unit
def test_with_white_keeps_other_responses() -> None:
    pattern = CFAPattern(("EW", "WE"), responses=(("E", (0.0, 0.7, 0.3)),))
    assert pattern.with_white((0.2, 0.6, 0.2)).response("E") == (0.0, 0.7, 0.3)


@pytest.mark.unit
@pytest.mark.parametrize("weights", [(float("nan"), 0.0, 0.0), (1.0, float("inf"), 0.0)])
def test_responses_that_are_not_finite_are_refused(weights: tuple[float, float, float]) -> None:
    with pytest.raises(PatternError, match=r"'W'.*three finite numbers") as caught:
        CFAPattern.named("rgbw-kodak").with_white(weights)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.usefixtures("without_shape_checks")
def test_a_response_of_two_numbers_is_refused() -> None:
    with pytest.raises(PatternError, match="three finite numbers"):
        CFAPattern(("RW", "WB"), responses=(("W", (0.5, 0.5)),))  # pyright: ignore[reportArgumentType]


@pytest.mark.property
@given(
    st.sampled_from(sorted(TILES)), st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 40)
)
def test_moves_undo_themselves(name: str, top: int, left: int, size: int) -> None:
    pattern = CFAPattern.named(name)
    assert pattern.crop(top=top, left=left).crop(top=-top, left=-left) == pattern
    for vertical in (False, True):
        flipped = pattern.flip(vertical=vertical, size=size)
        assert flipped.flip(vertical=vertical, size=size) == pattern
    turned = pattern.rotate(height=size, width=size + 3)
    assert turned.rotate(height=size + 3, width=size, quarter_turns=3) == pattern
    assert turned.rotate(height=size + 3, width=size, quarter_turns=-1) == pattern
    # Where a move arrives at a known tile, it bears the known name.
    assert pattern.crop(top=top, left=left).crop(top=-top, left=-left).name == name
