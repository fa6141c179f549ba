"""Raw files to pictures: levels, colours, phases, orientations, and what is done already."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from quantisp.api_demosaic import DemosaicedFile, DemosaicSettings, demosaic_files
from quantisp.cfa import CFAPattern, parse_pattern
from quantisp.cfa.color import SRGB_TO_XYZ
from quantisp.cfa.raw import RawOptions, read_raw, write_dng, write_raw
from quantisp.cfa.raw_image import RawImage
from quantisp.errors import ImageError, ModelError, OutputError, SettingError
from quantisp.quantization import Plan

pytestmark = pytest.mark.unit

KODAK = CFAPattern.named("rgbw-kodak")
MATRIX = np.array([[0.9, -0.2, -0.1], [-0.4, 1.3, 0.1], [0.0, 0.2, 0.6]])
SRGB = (0.6, 0.3, 0.2)
SIZE = (36, 44)


def scene(height: int, width: int) -> np.ndarray:
    """Linear sRGB that changes slowly."""
    y, x = np.mgrid[:height, :width]
    return np.stack([0.2 + 0.01 * y, 0.3 + 0.005 * x, 0.5 - 0.004 * (x + y)], axis=2)


def capture(pattern: CFAPattern, rgb: np.ndarray, **said: object) -> RawImage:
    """What a camera with MATRIX gives of linear sRGB, as 14-bit codes."""
    white = (MATRIX @ SRGB_TO_XYZ).sum(axis=1)
    # Exposed so that white reaches full scale in one colour.
    camera = rgb @ (MATRIX @ SRGB_TO_XYZ).T / white.max()
    neutral = white / white.max()
    height, width = rgb.shape[:2]
    seen = np.array(
        [
            [np.dot(pattern.response(pattern.letter(y, x)), camera[y, x]) for x in range(width)]
            for y in range(height)
        ]
    )
    positions = pattern.period[0] * pattern.period[1]
    black = tuple(500.0 + n for n in range(positions))
    levels = np.array(
        [
            [
                black[(y % len(pattern.tile)) * pattern.period[1] + x % pattern.period[1]]
                for x in range(width)
            ]
            for y in range(height)
        ]
    )
    raw = RawImage(
        codes=np.rint(levels + seen * (16000 - levels)).astype(np.uint16),
        pattern=pattern,
        black=black,
        white=16000.0,
        bits=14,
        as_shot_neutral=(float(neutral[0]), float(neutral[1]), float(neutral[2])),
        color_matrix=MATRIX,
    )
    return replace(raw, **said)


def picture(path: Path) -> np.ndarray:
    return imagecodecs.png_decode(path.read_bytes()) / 65535


def coded(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def make(raw: Path, out: Path, **settings: object) -> DemosaicedFile:
    model = settings.pop("model", "bilinear")
    chosen = DemosaicSettings(**settings)  # pyright: ignore[reportArgumentType]
    (made,) = demosaic_files([raw], out, model=model, settings=chosen)  # pyright: ignore[reportArgumentType]
    return made


@pytest.mark.parametrize("tile", ["RGGB", "GBRG", "WBWG/BWGW/WGWR/GWRW", "RCB/GRB/BGR"])
def test_a_flat_colour_has_its_srgb_values(tmp_path: Path, tile: str):
    pattern = parse_pattern(tile)
    write_dng(tmp_path / "a.dng", capture(pattern, np.full((*SIZE, 3), SRGB)))
    made = make(tmp_path / "a.dng", tmp_path / "out")
    assert made.white_balance == "as shot"
    assert np.allclose(picture(made.path), coded(np.array(SRGB)), atol=1e-3)
    linear = make(tmp_path / "a.dng", tmp_path / "linear", tone="linear", picture_format="tiff")
    assert np.allclose(tifffile.imread(linear.path) / 65535, SRGB, atol=1e-3)


@pytest.mark.parametrize("model", ["dephasenet-lite-bayer", "linear"])
@pytest.mark.parametrize("phase", ["GRBG", "BGGR"])
def test_a_network_takes_every_phase_of_its_cfa(tmp_path: Path, model: str, phase: str):
    rgb = scene(*SIZE)
    write_dng(tmp_path / "a.dng", capture(parse_pattern(phase), rgb))
    made = make(tmp_path / "a.dng", tmp_path / "out", model=model)
    inside = (slice(4, -4), slice(4, -4))
    assert np.allclose(picture(made.path)[inside], coded(rgb)[inside], atol=0.02)


def test_tiles_do_not_change_a_picture(tmp_path: Path):
    noise = np.random.default_rng(0).uniform(0.1, 0.6, (90, 70, 3))
    write_dng(tmp_path / "a.dng", capture(parse_pattern("GRBG"), noise))
    for model in ("linear", "residual"):
        whole, tiled = (
            make(tmp_path / "a.dng", tmp_path / f"{model}{px}", model=model, tile_px=px)
            for px in (4096, 33)
        )
        assert whole.path.read_bytes() == tiled.path.read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path: Path, orientation: int):
    rgb = scene(*SIZE)
    # How a camera that was held so stores the scene: the inverse of what undoes it.
    turned = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, 1),
        7: np.rot90(rgb, 2).transpose(1, 0, 2),
        8: np.rot90(rgb, -1),
    }[orientation]
    write_dng(tmp_path / "a.dng", capture(KODAK, turned, orientation=orientation))
    made = make(tmp_path / "a.dng", tmp_path / "out")
    assert np.allclose(picture(made.path)[4:-4, 4:-4], coded(rgb)[4:-4, 4:-4], atol=0.02)


def test_the_same_is_not_made_twice_and_other_settings_are(tmp_path: Path):
    out = tmp_path / "out"
    for name, value in (("a", 0.3), ("b", 0.5)):
        write_dng(tmp_path / f"{name}.dng", capture(KODAK, np.full((*SIZE, 3), value)))
    files = [tmp_path / "a.dng", tmp_path / "b.dng"]

    def run(**settings: object) -> list[bool]:
        chosen = DemosaicSettings(**settings)  # pyright: ignore[reportArgumentType]
        return [f.kept for f in demosaic_files(files, out, model="bilinear", settings=chosen)]

    assert run() == [False, False]
    assert run() == [True, True]
    # Tiles make no difference, and are none.
    assert run(tile_px=100) == [True, True]
    assert run(tone="linear") == [False, False]
    assert run() == [False, False]
    # Another raw file under the same name, and an output that is gone.
    write_dng(files[0], capture(KODAK, np.full((*SIZE, 3), 0.4)))
    (out / "b.png").unlink()
    assert run() == [False, False]
    # A kill in the middle of a line loses that output alone.
    journal = out / "demosaic.jsonl"
    journal.write_text(journal.read_text()[:-9])
    assert run() == [True, False]
    assert run() == [True, True]
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "demosaic.jsonl"}


def test_nothing_is_written_where_one_of_many_is_damaged(tmp_path: Path):
    write_dng(tmp_path / "a.dng", capture(KODAK, np.full((*SIZE, 3), 0.4)))
    (tmp_path / "b.dng").write_bytes(b"II*\0 not a raw file")
    with pytest.raises(ImageError, match=r"b\.dng"):
        demosaic_files([tmp_path], tmp_path / "out", model="bilinear")
    assert not (tmp_path / "out").exists()


def test_raw_files_of_one_name_get_names_of_their_own(tmp_path: Path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_dng(tmp_path / folder / "a.dng", capture(KODAK, np.full((*SIZE, 3), 0.4)))
    made = demosaic_files([tmp_path], tmp_path / "out", model="bilinear")
    assert [f.path.name for f in made] == ["x-a.dng.png", "y-a.dng.png"]


def test_white_balance(tmp_path: Path):
    flat = capture(KODAK, np.full((*SIZE, 3), 0.4), as_shot_neutral=None, color_matrix=None)
    write_dng(tmp_path / "a.dng", flat)
    grey = make(tmp_path / "a.dng", tmp_path / "grey")
    assert grey.white_balance == "grey world"
    assert np.ptp(picture(grey.path), axis=2).max() < 2e-3
    given = make(tmp_path / "a.dng", tmp_path / "given", white_balance="1,1,1")
    assert np.ptp(picture(given.path), axis=2).max() > 0.02
    with pytest.raises(ImageError, match="pass --white-balance grey-world"):
        make(tmp_path / "a.dng", tmp_path / "none", white_balance="as-shot")


@pytest.mark.parametrize(
    "text",
    ["1,2", "a,b,c", "0,1,1", "-1,1,1", "nan,1,1", "1,nan,1", "inf,1,1", "inf,inf,inf", "sunny"],
)
def test_white_balances_that_are_none(text: str):
    with pytest.raises(SettingError, match="correct --white-balance"):
        DemosaicSettings(white_balance=text)


@pytest.mark.reference
def test_a_bayer_dng_is_developed_by_libraw(tmp_path: Path):
    rawpy = pytest.importorskip("rawpy", reason="needs rawpy")
    rgb = np.clip(scene(*SIZE), 0.05, 0.6)
    write_dng(tmp_path / "a.dng", capture(KODAK, rgb))
    made = make(tmp_path / "a.dng", tmp_path / "out", to_bayer=True, model="residual")
    assert made.path.name == "a-bayer.dng"
    back = read_raw(made.path)
    assert (back.pattern, back.bits, back.white) == (CFAPattern.named("bayer"), 14, 16000.0)
    with rawpy.imread(str(made.path)) as other:
        developed = other.postprocess(
            use_camera_wb=True,
            no_auto_bright=True,
            adjust_maximum_thr=0.0,
            output_bps=16,
            gamma=(1, 1),
            output_color=rawpy.ColorSpace.raw,
            user_flip=0,
        )
    balanced = rgb @ (MATRIX @ SRGB_TO_XYZ).T / (MATRIX @ SRGB_TO_XYZ).sum(axis=1)
    inside = (slice(6, -6), slice(6, -6))
    ratio = (developed[inside] / 65535) / balanced[inside]
    # Colours are the same; two interpolations, one after the other, differ in single pixels.
    assert np.allclose(ratio.mean(axis=(0, 1)), 1.0, atol=0.005)
    assert np.abs(ratio - 1.0).max() < 0.08


def test_a_sensor_without_red_green_and_blue_becomes_bayer(tmp_path: Path):
    grey = np.repeat(0.2 + 0.01 * np.mgrid[: SIZE[0], : SIZE[1]][0][:, :, None], 3, axis=2)
    write_raw(tmp_path / "a.npy", capture(parse_pattern("CY/YM"), grey))
    made = make(tmp_path / "a.npy", tmp_path / "out", to_bayer=True)
    back = read_raw(made.path)
    assert back.pattern == CFAPattern.named("bayer")
    # As a sensor of the same exposure would have given it.
    camera = grey @ (MATRIX @ SRGB_TO_XYZ).T / (MATRIX @ SRGB_TO_XYZ).sum(axis=1).max()
    light = (back.codes - back.black[0]) / (back.white - back.black[0])
    for y, x, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        inside = (slice(y + 4, -4, 2), slice(x + 4, -4, 2))
        assert np.allclose(light[inside], camera[..., colour][inside], atol=2e-3)


def test_bayer_is_not_turned_into_bayer(tmp_path: Path):
    write_dng(tmp_path / "a.dng", capture(parse_pattern("GRBG"), scene(*SIZE)))
    with pytest.raises(ImageError, match="leave out --to bayer"):
        make(tmp_path / "a.dng", tmp_path / "out", to_bayer=True)


def test_bits_are_compared_with_float(tmp_path: Path):
    write_dng(tmp_path / "a.dng", capture(parse_pattern("RGGB"), scene(*SIZE)))
    psnr = [
        make(
            tmp_path / "a.dng",
            tmp_path / str(bits),
            model="linear",
            plan=Plan.uniform(weight_bits=bits, granularity="channel"),
        ).psnr_to_float_db
        for bits in (5, 9)
    ]
    assert psnr[0] is not None
    assert psnr[1] is not None
    assert psnr[1] > psnr[0] + 15
    assert make(tmp_path / "a.dng", tmp_path / "float").psnr_to_float_db is None


def test_models_for_another_cfa_are_refused(tmp_path: Path):
    write_dng(tmp_path / "a.dng", capture(parse_pattern("RGGB"), scene(*SIZE)))
    with pytest.raises(ModelError, match=r"a\.dng.*dephasenet-lite-bayer.*quantisp train"):
        make(tmp_path / "a.dng", tmp_path / "out", model="dephasenet-lite")
    assert not (tmp_path / "out").exists()


def test_a_raw_file_is_not_overwritten(tmp_path: Path):
    write_dng(tmp_path / "a.dng", capture(KODAK, scene(*SIZE)))
    (tmp_path / "a.dng").rename(tmp_path / "a-bayer.dng")
    (tmp_path / "a.dng").symlink_to(tmp_path / "a-bayer.dng")
    with pytest.raises(OutputError, match="see --out"):
        make(tmp_path / "a.dng", tmp_path, to_bayer=True)


def test_a_file_without_a_header_needs_its_size(tmp_path: Path):
    raw = capture(parse_pattern("RGGB"), scene(*SIZE))
    raw.codes.astype("<u2").tofile(tmp_path / "a.raw")
    options = RawOptions(
        width=SIZE[1],
        height=SIZE[0],
        packing="plain16",
        bits=14,
        pattern=parse_pattern("RGGB"),
        black=(500.0,),
        white=16000.0,
    )
    (made,) = demosaic_files([tmp_path / "a.raw"], tmp_path / "out", model="menon", options=options)
    assert picture(made.path).shape == (*SIZE, 3)
    entry = json.loads((tmp_path / "out" / "demosaic.jsonl").read_text().splitlines()[-1])
    assert (entry["output"], entry["source"]) == ("a.png", "a.raw")
