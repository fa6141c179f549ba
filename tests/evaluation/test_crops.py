from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from study_kit import (
    KODAK_CFA,
    SETTINGS,
    measurement,
    picture,
    request,
    surveyed,
    tiny_net,
    write_pictures,
)

from quantisp.cfa import mosaic
from quantisp.data import read_picture
from quantisp.errors import SettingError
from quantisp.evaluation import CropPlace, StudyPicture, mosaicked, parse_place, run_study
from quantisp.evaluation.crops import cut_crops, find_places
from quantisp.evaluation.pictures import load_sample
from quantisp.inference import Window, prepare, restore
from quantisp.metrics import rounded_to_8_bits
from quantisp.quantization import Plan, quantize
from quantisp.records import Setting

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
LARGE = picture("large", 300, 500)
SMALL = picture("small", 60, 90)


def window(top: int, left: int, height: int = 128, width: int = 128) -> Window:
    return Window(top=top, left=left, height=height, width=width)


@pytest.mark.parametrize(
    ("text", "image", "expected"),
    [
        ("large", "large", window(86, 186)),
        ("large:0,0", "large", window(0, 0)),
        ("large:172,372", "large", window(172, 372)),
        ("large: 5, 7", "large", window(5, 7)),
        ("small", "small", window(0, 0, 60, 90)),
        ("small:0,0", "small", window(0, 0, 60, 90)),
    ],
)
def test_places_by_hand(text: str, image: str, expected: Window) -> None:
    assert parse_place(text, [LARGE, SMALL]) == CropPlace(image=image, window=expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other", "found 'other': choose one of large, small"),
        ("", "found '': choose one of"),
        ("large:1", "NAME or NAME:TOP,LEFT in px, found 'large:1'"),
        ("large:1,2,3", "NAME or NAME:TOP,LEFT"),
        ("large:a,b", "NAME or NAME:TOP,LEFT"),
        ("large:1.5,2", "NAME or NAME:TOP,LEFT"),
        ("large:173,0", "128x128 px inside large .* found top 173, left 0"),
        ("large:-1,0", "found top -1"),
        ("small:1,0", "60x90 px inside small"),
    ],
)
def test_places_that_do_not_exist(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse_place(text, [LARGE, SMALL])


def setting(bits: int) -> Setting:
    return Setting(method="rtn", granularity="tensor", weight_bits=bits)


# Tiles of a picture of 300x500 px: 3 rows, 4 columns.
FLAT = np.full((3, 4), 1e-4)


def planted(row: int, column: int, mse: float) -> tuple[tuple[float, ...], ...]:
    tiles = FLAT.copy()
    tiles[row, column] = mse
    return tuple(map(tuple, tiles.tolist()))


def test_the_tile_with_the_damage_is_found() -> None:
    # Float is worst elsewhere: what counts is what the bits add.
    references = {"large": measurement(tile_mse=planted(0, 0, 0.5))}
    tiles = np.array(planted(0, 0, 0.5))
    tiles[2, 3] = 2e-3
    measured = {"large": measurement(2e-4, tile_mse=tuple(map(tuple, tiles.tolist())))}
    (place,) = find_places([LARGE], references, [(setting(8), measured)])
    assert place == CropPlace(image="large", window=window(172, 372))


def test_the_three_worst_pictures_are_shown() -> None:
    pictures = [picture(name, 300, 500) for name in "abcde"]
    references = {p.name: measurement(tile_mse=planted(0, 0, 1e-4)) for p in pictures}
    added = dict(zip("abcde", (1e-3, 5e-3, 2e-3, 4e-3, 3e-3), strict=True))
    measured = {n: measurement(2e-4, tile_mse=planted(1, 2, mse)) for n, mse in added.items()}
    places = find_places(pictures, references, [(setting(4), measured)])
    assert [place.image for place in places] == ["b", "d", "e"]
    assert {place.window.top for place in places} == {128}
    assert {place.window.left for place in places} == {256}


@pytest.mark.parametrize(
    ("mse_at", "told_by"),
    [
        # Float is 1e-4. The widest of 4, 6, 8 and 10 that costs 0.1 dB tells.
        ({4: 1e-2, 6: 1e-3, 8: 1.001e-4, 10: 1e-4}, 6),
        ({4: 1e-2, 6: 1e-3, 8: 1.1e-4, 10: 1e-4}, 8),
        # 7 bits are not shown.
        ({6: 1e-3, 7: 5e-4, 8: 1e-4}, 6),
        # Nothing can be seen: the fewest bits.
        ({5: 1e-4, 8: 1e-4}, 5),
    ],
)
def test_at_the_widest_width_whose_damage_can_be_seen(
    mse_at: dict[int, float], told_by: int
) -> None:
    columns = {bits: number % 4 for number, bits in enumerate(mse_at)}
    references = {"large": measurement(1e-4, tile_mse=planted(0, 0, 1e-4))}
    outcomes = [
        (setting(bits), {"large": measurement(mse, tile_mse=planted(1, columns[bits], 0.1))})
        for bits, mse in mse_at.items()
    ]
    (place,) = find_places([LARGE], references, outcomes)
    assert place.window.left == (0, 128, 256, 372)[columns[told_by]]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, StudyPicture]:
    return {p.name: p for p in surveyed(write_pictures(tmp_path / "pictures"))}


def test_panels_are_windows_of_whole_restorations(pictures: dict[str, StudyPicture]) -> None:
    net = prepare(tiny_net(), CPU)
    place = CropPlace(image="tiled", window=window(12, 22))
    plans = {bits: Plan.uniform(weight_bits=bits) for bits in (4, 5, 8)}
    networks = {bits: prepare(quantize(net, plan), CPU) for bits, plan in plans.items()}
    (crop,) = cut_crops(
        net,
        mosaicked(KODAK_CFA),
        [load_sample(pictures["tiled"], mosaicked(KODAK_CFA))],
        [place],
        {bits: lambda bits=bits: networks[bits] for bits in networks},
        method="rtn",
    )
    assert (crop.image, crop.top, crop.left, crop.height, crop.width) == ("tiled", 12, 22, 128, 128)
    assert [panel.label for panel in crop.panels] == ["4 bits, rtn", "8 bits, rtn", "float"]

    samples = read_picture(pictures["tiled"].path).samples
    truth = torch.from_numpy(samples).permute(2, 0, 1)[None] / 255.0
    part = (slice(12, 140), slice(22, 150))
    assert crop.truth == samples[part].tobytes()
    for panel, network in zip(crop.panels, (networks[4], networks[8], net), strict=True):
        whole = rounded_to_8_bits(restore(network, mosaic(truth, KODAK_CFA)))
        expected = whole[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()[part]
        found = np.frombuffer(panel.rgb, np.uint8).reshape(128, 128, 3)
        # Rounding to 8 bits may fall on either side where float32 sums differ in their order.
        different = found != expected
        assert different.mean() < 1e-3
        assert np.abs(found.astype(int) - expected).max() <= 1
        errors = np.abs(found.astype(int) - samples[part]).max(axis=2)
        assert panel.error == errors.astype(np.uint8).tobytes()
        mse = ((found.astype(float) - samples[part]) / 255) ** 2
        assert panel.psnr_db == pytest.approx(-10 * np.log10(mse.mean()), abs=1e-4)


def test_a_study_shows_the_places_that_were_asked_for(
    pictures: dict[str, StudyPicture], tmp_path: Path
) -> None:
    listed = list(pictures.values())
    asked = [parse_place("tiled:0,3", listed), parse_place("odd", listed)]
    crops = run_study(request(listed, crop_places=asked), tmp_path / "out", device=CPU).crops
    assert [(crop.image, crop.top, crop.left) for crop in crops] == [("tiled", 0, 3), ("odd", 0, 0)]
    # Only the widths of the first way of rounding.
    assert {s.granularity for s in SETTINGS} == {"tensor", "channel"}
    assert [panel.label for panel in crops[0].panels] == ["4 bits, rtn", "8 bits, rtn", "float"]
