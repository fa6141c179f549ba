"""The published layouts, written small: what is found, what is read, what is refused."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from quantisp.data.datasets import find_dataset, read_training_picture
from quantisp.data.hdrplus import HDRPlusFile
from quantisp.data.images import ImageFile
from quantisp.errors import ImageError, SettingError

ID = "0006_20160722_115157_431"
HEIGHT, WIDTH, WHITE = 36, 52, 16383
# Fractions, as Pixel phones store them, one for each place in the tile.
BLACK_TAG, BLACK = (255, 4, 127, 2, 64, 1, 257, 4), np.array([[63.75, 63.5], [64.0, 64.25]])
NEUTRAL_TAG, NEUTRAL = (1, 2, 1, 1, 5, 8), np.array([0.5, 1.0, 0.625])
# Not symmetric, and its rows sum to 1, as those of the data set.
MATRIX = np.array([[1.6, -0.5, -0.1], [-0.2, 1.5, -0.3], [0.1, -0.8, 1.7]])
PATTERNS = {"RGGB": (0, 1, 1, 2), "BGGR": (2, 1, 1, 0), "GRBG": (1, 0, 2, 1), "GBRG": (1, 2, 0, 1)}
CFA = 32803

TRAIN = [
    "train/hdrvdp/000/000001.png",
    "train/hdrvdp/001/001000.png",
    "train/moire/000/000001.png",
]


def png(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(samples).save(path)
    return path


# --- MIT demosaicking ----------------------------------------------------------------------------


@pytest.fixture
def mit(tmp_path: Path) -> Path:
    root = tmp_path / "mit"
    others = ["val/moire/000/000002.png", "test/hdrvdp/000/000003.png"]
    for seed, name in enumerate([*TRAIN, *others]):
        png(root / name, seed)
    return root


def names(files: tuple[ImageFile, ...]) -> list[str]:
    return [file.name for file in files]


@pytest.mark.unit
def test_mit_without_lists(mit: Path) -> None:
    png(mit / "train/moire/000/.hidden.png")
    (mit / "train/moire/000/notes.txt").write_text("no picture")
    dataset = find_dataset(mit)
    assert dataset.name == "mit-demosaicking"
    assert names(dataset.train) == TRAIN
    assert names(dataset.validation) == ["val/moire/000/000002.png"]
    stored = np.asarray(Image.open(mit / TRAIN[2]))
    assert np.array_equal(read_training_picture(dataset.train[2]), stored)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("listing", "lines"),
    [
        ("train/filelist.txt", "train/moire/000/000001.png\ntrain/hdrvdp/000/000001.png\n"),
        ("train/filelist.txt", "moire/000/000001.png\r\n\r\n./hdrvdp/000/000001.png"),
        ("train/filelist.txt", "moire/000/000001.png\nhdrvdp/000/000001.png\n" * 2),
    ],
    ids=["from the root", "from the split", "twice"],
)
def test_a_list_of_a_split_names_its_files(mit: Path, listing: str, lines: str) -> None:
    (mit / listing).write_text(lines)
    dataset = find_dataset(str(mit))
    assert names(dataset.train) == [TRAIN[2], TRAIN[0]]
    assert names(dataset.validation) == ["val/moire/000/000002.png"]


@pytest.mark.unit
def test_a_list_of_a_subset_names_its_files(mit: Path) -> None:
    (mit / "train/hdrvdp/filelist.txt").write_text("001/001000.png\n")
    assert names(find_dataset(mit).train) == TRAIN[1:]


@pytest.mark.unit
def test_a_listed_file_that_is_not_there_is_named_and_skipped(
    mit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = png(mit.parent / "outside.png")
    bad = ["moire/000/999999.png", "../../outside.png", str(outside), "moire", "a" * 5000, "n\0l"]
    (mit / "train/filelist.txt").write_text("\n".join([*bad, "moire/000/000001.png"]))
    with caplog.at_level(logging.WARNING):
        assert names(find_dataset(mit).train) == [TRAIN[2]]
    assert "moire/000/999999.png" in caplog.text
    assert "outside.png" in caplog.text
    assert "6 of 7 files" in caplog.text


@pytest.mark.unit
def test_only_some_of_many_missing_files_are_named(
    mit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"moire/009/{index:06}.png" for index in range(500)]
    (mit / "train/filelist.txt").write_text("\n".join([*lines, "moire/000/000001.png"]))
    find_dataset(mit)
    assert len(caplog.records) == 21
    assert "500 of 501" in caplog.text


@pytest.mark.unit
def test_a_list_of_any_bytes_is_read(mit: Path) -> None:
    name = b"moire/000/\xff\n"
    (mit / "train/filelist.txt").write_bytes(b"\xef\xbb\xbfmoire/000/000001.png\n" + name)
    assert names(find_dataset(mit).train) == [TRAIN[2]]


@pytest.mark.unit
@pytest.mark.parametrize("missing", ["files", "folder", "listed"])
def test_an_empty_mit_set_is_refused(mit: Path, missing: str) -> None:
    if missing == "listed":
        (mit / "train/filelist.txt").write_text("moire/000/777777.png\n")
    else:
        for path in (mit / "train").rglob("*.png"):
            path.unlink()
    if missing == "folder":
        (mit / "train").rename(mit.parent / "elsewhere")
    with pytest.raises(ImageError, match=r"expected PNG files in .*train .*found none") as caught:
        find_dataset(mit)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_a_damaged_mit_picture_is_named(mit: Path) -> None:
    path = mit / TRAIN[0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"hdrvdp/000/000001\.png cannot be decoded"):
        read_training_picture(find_dataset(mit).train[0])


# --- plain folders -------------------------------------------------------------------------------


@pytest.mark.unit
def test_any_other_folder_is_a_plain_one(tmp_path: Path) -> None:
    # Names of the data sets' files and folders do not make one.
    for name in ("train/a.png", "bursts/b.png", "results_1/c.png"):
        png(tmp_path / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "final.jpg")
    dataset = find_dataset(tmp_path, hdrplus="merged")
    assert (dataset.name, dataset.validation) == ("folder", ())
    assert sorted(names(dataset.train)) == ["a", "b", "c", "final"]
    assert all(type(file) is ImageFile for file in dataset.train)
    final = next(file for file in dataset.train if file.name == "final")
    assert read_training_picture(final).shape == (8, 8, 3)  # not reduced


@pytest.mark.unit
def test_a_file_and_the_sample_and_nothing(tmp_path: Path) -> None:
    assert names(find_dataset(png(tmp_path / "a.png")).train) == ["a"]
    assert len(find_dataset("sample").train) == 3
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(ImageError):
            find_dataset(nothing)


@pytest.mark.unit
def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"expected final or merged .* found 'raw'"):
        find_dataset(png(tmp_path / "a.png"), hdrplus="raw")


# --- HDR+: a burst as it is published ------------------------------------------------------------


def extratags(pattern: str, **changes: tuple[Any, ...] | None) -> list[tuple[Any, ...]]:
    tags: dict[str, tuple[Any, ...] | None] = {
        "CFARepeatPatternDim": (33421, "H", 2, (2, 2)),
        "CFAPattern": (33422, "B", 4, PATTERNS[pattern]),
        "BlackLevelRepeatDim": (50713, "H", 2, (2, 2)),
        "BlackLevel": (50714, "2I", 4, BLACK_TAG),
        "WhiteLevel": (50717, "I", 1, WHITE),
        "AsShotNeutral": (50728, "2I", 3, NEUTRAL_TAG),
    }
    return [(*tag, True) for tag in (tags | changes).values() if tag is not None]


def bare(path: Path, mosaic: NDArray[np.uint16], tags: list[tuple[Any, ...]]) -> None:
    tifffile.imwrite(path, mosaic, photometric=CFA, extratags=tags, metadata=None)


def deflated(path: Path, mosaic: NDArray[np.uint16], tags: list[tuple[Any, ...]]) -> None:
    tifffile.imwrite(
        path, mosaic, photometric=CFA, extratags=tags, metadata=None, compression="zlib"
    )


def lossless_jpeg(path: Path, mosaic: NDArray[np.uint16], tags: list[tuple[Any, ...]]) -> None:
    padded = np.pad(mosaic, ((0, -HEIGHT % 16), (0, -WIDTH % 16)))

    def tiles() -> Iterator[bytes]:
        for y in range(0, HEIGHT, 16):
            for x in range(0, WIDTH, 16):
                tile = np.ascontiguousarray(padded[y : y + 16, x : x + 16])
                yield imagecodecs.ljpeg_encode(tile, bitspersample=16)

    tifffile.imwrite(
        path,
        tiles(),
        shape=mosaic.shape,
        dtype=mosaic.dtype,
        tile=(16, 16),
        compression=7,
        photometric=CFA,
        extratags=tags,
        metadata=None,
    )


def in_a_sub_ifd(path: Path, mosaic: NDArray[np.uint16], tags: list[tuple[Any, ...]]) -> None:
    """A preview first; the mosaic below it; AsShotNeutral where DNG puts it, in the first page."""
    with tifffile.TiffWriter(path) as tiff:
        described = [tag for tag in tags if tag[0] == 50728]
        preview = np.zeros((4, 4, 3), np.uint8)
        tiff.write(preview, photometric="rgb", subifds=1, extratags=described, metadata=None)
        below = [tag for tag in tags if tag[0] != 50728]
        tiff.write(mosaic, photometric=CFA, extratags=below, metadata=None)


Writer = Callable[[Path, NDArray[np.uint16], list[tuple[Any, ...]]], None]
WRITERS: dict[str, Writer] = {
    "bare": bare,
    "deflate": deflated,
    "lossless jpeg": lossless_jpeg,
    "sub-IFD": in_a_sub_ifd,
}


def scene() -> NDArray[np.float64]:
    """Linear sRGB in [0, 1], one colour a Bayer cell, none too dark for the curve's steep end."""
    return np.random.default_rng(2).uniform(0.05, 0.6, (HEIGHT // 2, WIDTH // 2, 3))


def shading() -> NDArray[np.float32]:
    """Gains that grow towards the corners; the planes differ, both greens too."""
    y, x = np.meshgrid(np.linspace(-1, 1, 13), np.linspace(-1, 1, 17), indexing="ij")
    bowl = y * y + x * x + 0.3 * y
    planes = [1.0 + 0.1 * plane + (0.8 - 0.1 * plane) * bowl for plane in (1, 2, 3, 4)]
    return np.stack(planes, axis=2).astype(np.float32)


def write_map(path: Path, gains: NDArray[Any]) -> None:
    planes = "contig" if gains.ndim == 3 else None
    tifffile.imwrite(path, gains, photometric="minisblack", planarconfig=planes, metadata=None)


def gain_at(gains: NDArray[np.float32], plane: int, y: int, x: int) -> float:
    """Bilinear, one pixel at a time; the map's corners on the picture's corner pixels."""
    v, u = y / (HEIGHT - 1) * (gains.shape[0] - 1), x / (WIDTH - 1) * (gains.shape[1] - 1)
    rows = np.maximum(0.0, 1 - np.abs(v - np.arange(gains.shape[0])))
    columns = np.maximum(0.0, 1 - np.abs(u - np.arange(gains.shape[1])))
    return float(rows @ gains[:, :, plane] @ columns)


@cache
def expose(pattern: str) -> NDArray[np.uint16]:
    """The mosaic that a camera with these constants stores of the scene: the chain backwards."""
    gains = shading()
    camera = scene() @ np.linalg.inv(MATRIX).T * NEUTRAL
    mosaic = np.zeros((HEIGHT, WIDTH))
    red_row = pattern.index("R") // 2
    for y in range(HEIGHT):
        for x in range(WIDTH):
            letter = pattern[y % 2 * 2 + x % 2]
            green = 1 if y % 2 == red_row else 2
            plane = {"R": 0, "G": green, "B": 3}[letter]
            signal = camera[y // 2, x // 2, "RGB".index(letter)] / gain_at(gains, plane, y, x)
            black = BLACK[y % 2, x % 2]
            mosaic[y, x] = black + signal * (WHITE - black)
    # A colour beyond what the sensor can hold would not come back.
    assert BLACK.max() < mosaic.min()
    assert mosaic.max() < WHITE
    return np.round(mosaic).astype(np.uint16)


def srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def burst(
    root: Path,
    *,
    writer: Writer = bare,
    pattern: str = "RGGB",
    tags: list[tuple[Any, ...]] | None = None,
    name: str = ID,
) -> HDRPlusFile:
    folder, results = root / "bursts" / name, root / "results_20171023" / name
    folder.mkdir(parents=True)
    results.mkdir(parents=True)
    np.savetxt(folder / "rgb2rgb.txt", MATRIX)
    (folder / "timing.txt").write_text("align 1\n")
    (folder / "payload_N000.dng").write_bytes(b"not read")
    (results / "reference_frame.txt").write_text("2\n")
    write_map(folder / "lens_shading_map_N002.tiff", shading())
    mosaic = expose(pattern)
    writer(results / "merged.dng", mosaic, tags or extratags(pattern))
    return merged(root)


def merged(root: Path) -> HDRPlusFile:
    (file,) = find_dataset(root, hdrplus="merged").train
    assert isinstance(file, HDRPlusFile)
    return file


def error_of(file: HDRPlusFile) -> float:
    """The largest error of a developed scene, in steps of 16 bits."""
    picture = read_training_picture(file)
    assert picture.dtype == np.uint16
    assert picture.shape == (HEIGHT // 2, WIDTH // 2, 3)
    return float(np.abs(picture - srgb(scene()) * 65535).max())


# Rounding a sample to an integer, half of 1/16320, is multiplied by gain, balance and matrix (about
# 3 x 2 x 2.2), then by the curve's slope at 0.05 (about 2.5).
TOLERANCE = 0.5 / 16320 * 3 * 2 * 2.2 * 2.5 * 65535


@pytest.mark.reference
@pytest.mark.parametrize("pattern", PATTERNS)
def test_known_colours_come_back_through_merged(tmp_path: Path, pattern: str) -> None:
    assert error_of(burst(tmp_path, pattern=pattern)) < TOLERANCE


@pytest.mark.reference
@pytest.mark.parametrize("writer", WRITERS)
def test_however_the_mosaic_is_stored(tmp_path: Path, writer: str) -> None:
    assert error_of(burst(tmp_path, writer=WRITERS[writer])) < TOLERANCE


def edit_matrix(file: HDRPlusFile) -> None:
    np.savetxt(file.burst / "rgb2rgb.txt", MATRIX.T)


def edit_greens(file: HDRPlusFile) -> None:
    swapped = shading()[:, :, [0, 2, 1, 3]]
    write_map(file.burst / "lens_shading_map_N002.tiff", swapped)


def edit_rows(file: HDRPlusFile) -> None:
    flipped = np.ascontiguousarray(shading()[::-1])
    write_map(file.burst / "lens_shading_map_N002.tiff", flipped)


def edit_tag(name: str, tag: tuple[Any, ...]) -> Callable[[HDRPlusFile], None]:
    def edit(file: HDRPlusFile) -> None:
        mosaic = expose("RGGB")
        bare(file.path, mosaic, extratags("RGGB", **{name: tag}))

    return edit


@pytest.mark.reference
@pytest.mark.parametrize(
    "edit",
    [
        edit_matrix,
        edit_greens,
        edit_rows,
        edit_tag("CFAPattern", (33422, "B", 4, PATTERNS["BGGR"])),
        edit_tag("BlackLevel", (50714, "2I", 4, (63, 1, 63, 1, 64, 1, 100, 1))),
        edit_tag("WhiteLevel", (50717, "I", 1, WHITE - 200)),
        edit_tag("AsShotNeutral", (50728, "2I", 3, (1, 2, 1, 1, 1, 2))),
    ],
    ids=["matrix", "greens", "map upside down", "pattern", "black", "white", "neutral"],
)
def test_known_colours_do_not_come_back_with_other_constants(
    tmp_path: Path, edit: Callable[[HDRPlusFile], None]
) -> None:
    file = burst(tmp_path)
    edit(file)
    assert error_of(file) > 2 * TOLERANCE


@pytest.mark.unit
def test_what_is_saturated_is_white_and_what_is_black_is_black(tmp_path: Path) -> None:
    file = burst(tmp_path)
    for level, expected in ((WHITE, 65535), (60, 0)):
        bare(file.path, np.full((HEIGHT, WIDTH), level, np.uint16), extratags("RGGB"))
        assert (read_training_picture(file) == expected).all()


@pytest.mark.unit
def test_masked_borders_are_cut_off_and_an_odd_edge_is_left_out(tmp_path: Path) -> None:
    file = burst(tmp_path)
    mosaic = expose("RGGB")
    bordered = np.pad(mosaic, ((3, 1), (1, 5)), constant_values=9000)
    area = (50829, "I", 4, (3, 1, 3 + HEIGHT, 1 + WIDTH))
    bare(file.path, bordered, extratags("RGGB", ActiveArea=area))
    assert error_of(file) < TOLERANCE
    bare(file.path, np.pad(mosaic, ((0, 1), (0, 1))), extratags("RGGB"))
    assert read_training_picture(file).shape == (HEIGHT // 2, WIDTH // 2, 3)


@pytest.mark.unit
def test_without_a_reference_frame_the_first_map_is_taken(tmp_path: Path) -> None:
    file = burst(tmp_path)
    (file.path.parent / "reference_frame.txt").unlink()
    with pytest.raises(ImageError, match="N000"):
        read_training_picture(file)
    write_map(file.burst / "lens_shading_map_N000.tiff", shading())
    assert error_of(file) < TOLERANCE


# --- HDR+: the finished photograph ---------------------------------------------------------------


def final(root: Path, name: str, date: str = "20171023", size: tuple[int, int] = (20, 31)) -> Path:
    folder = root / f"results_{date}" / name
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(samples).save(folder / "final.jpg", quality=95)
    return folder / "final.jpg"


@pytest.mark.reference
def test_final_is_averaged_over_2x2(tmp_path: Path) -> None:
    path = final(tmp_path, ID)
    (file,) = find_dataset(tmp_path).train
    picture = read_training_picture(file)
    stored = imagecodecs.jpeg_decode(path.read_bytes())[:, :30].astype(float)
    means = (stored[::2, ::2] + stored[1::2, ::2] + stored[::2, 1::2] + stored[1::2, 1::2]) / 4
    assert picture.dtype == np.uint8
    assert picture.shape == (10, 15, 3)
    assert np.abs(picture - means).max() <= 0.5
    # Sampling instead of averaging would be noticed.
    assert np.abs(stored[::2, ::2] - means).max() > 20


@pytest.mark.unit
def test_the_latest_result_of_each_burst_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for date, name in (("20161014", "b"), ("20171023", "b"), ("20161014", "a")):
        final(tmp_path, name, date)
    for name in ("a", "b", "c"):
        (tmp_path / "bursts" / name).mkdir(parents=True)
    dataset = find_dataset(tmp_path)
    assert (dataset.name, dataset.validation) == ("hdr+", ())
    assert names(dataset.train) == ["a", "b"]
    found = [file.path.parent.parent.name for file in dataset.train]
    assert found == ["results_20161014", "results_20171023"]
    assert "1 bursts have no final.jpg, c first" in caplog.text


@pytest.mark.unit
@pytest.mark.parametrize("source", ["final", "merged"])
def test_bursts_without_results_are_refused(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "bursts" / ID
    folder.mkdir(parents=True)
    (folder / "payload_N000.dng").write_bytes(b"")
    with pytest.raises(ImageError, match=rf"expected .*results_DATE/ID/{source}\..* found none"):
        find_dataset(tmp_path, hdrplus=source)


@pytest.mark.unit
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6])
def test_a_truncated_final_is_named(tmp_path: Path, keep: float) -> None:
    path = final(tmp_path, ID)
    (file,) = find_dataset(tmp_path).train
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"final\.jpg cannot be decoded"):
        read_training_picture(file)


@pytest.mark.unit
def test_a_final_that_is_too_small_or_deep_is_refused(tmp_path: Path) -> None:
    path = final(tmp_path, ID, size=(1, 9))
    (file,) = find_dataset(tmp_path).train
    with pytest.raises(ImageError, match="at least 2x2 px"):
        read_training_picture(file)
    path.write_bytes(imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint16)))
    with pytest.raises(ImageError, match="found uint16"):
        read_training_picture(file)


# --- HDR+: what is damaged or incomplete ---------------------------------------------------------


def refused(file: HDRPlusFile, match: str) -> None:
    with pytest.raises(ImageError, match=match) as caught:
        read_training_picture(file)
    assert "\n" not in str(caught.value)
    assert str(file.burst) in str(caught.value) or str(file.path.parent) in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["rgb2rgb.txt", "lens_shading_map_N002.tiff"])
def test_an_incomplete_burst_is_named(tmp_path: Path, name: str) -> None:
    file = burst(tmp_path)
    (file.burst / name).unlink()
    refused(file, f"expected .*{name}, found nothing: download")
    (file.burst / name).mkdir()
    refused(file, f"expected .*{name}, found ")


DAMAGED_MATRICES = {
    "empty": b"",
    "short": b"1 2 3",
    "long": b"1 " * 10,
    "word": b"1 0 0 0 1 0 0 0 one",
    "nan": b"1 0 0 0 nan 0 0 0 1",
    "huge": b"1 0 0 0 1e30 0 0 0 1",
    "bytes": b"\xff\xfe",
    "spaces": b" " * 10_000_000,
}


@pytest.mark.unit
@pytest.mark.parametrize("text", DAMAGED_MATRICES.values(), ids=DAMAGED_MATRICES)
def test_a_damaged_matrix_is_refused(tmp_path: Path, text: bytes) -> None:
    file = burst(tmp_path)
    (file.burst / "rgb2rgb.txt").write_bytes(text)
    refused(file, "expected 3x3 numbers")


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "two", "-1", "1e3", "99999", "²"])
def test_a_damaged_reference_frame_is_refused(tmp_path: Path, text: str) -> None:
    file = burst(tmp_path)
    (file.path.parent / "reference_frame.txt").write_text(text, encoding="utf-8")
    refused(file, "expected a frame's number")


@pytest.mark.unit
@pytest.mark.parametrize(
    "gains",
    [
        np.ones((13, 17, 3), np.float32),  # as some were published at first
        np.ones((13, 17), np.float32),
        np.ones((13, 17, 4), np.uint16),
        np.ones((1, 17, 4), np.float32),
        np.zeros((13, 17, 4), np.float32),
        np.full((13, 17, 4), np.nan, np.float32),
        np.ones((300, 300, 4), np.float32),
    ],
    ids=["3 planes", "1 plane", "integers", "1 row", "zeros", "nan", "large"],
)
def test_another_shading_map_is_refused(tmp_path: Path, gains: NDArray[Any]) -> None:
    file = burst(tmp_path)
    write_map(file.burst / "lens_shading_map_N002.tiff", gains)
    refused(file, "expected .*gains")


@pytest.mark.unit
def test_a_shading_map_of_separate_planes_is_read(tmp_path: Path) -> None:
    file = burst(tmp_path)
    planes = np.ascontiguousarray(shading().transpose(2, 0, 1))
    tifffile.imwrite(
        file.burst / "lens_shading_map_N002.tiff",
        planes,
        photometric="minisblack",
        planarconfig="separate",
        metadata=None,
    )
    assert error_of(file) < TOLERANCE


@pytest.mark.unit
@pytest.mark.parametrize("keep", [0.0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_truncated_mosaic_is_refused(tmp_path: Path, writer: str, keep: float) -> None:
    file = burst(tmp_path, writer=WRITERS[writer])
    content = file.path.read_bytes()
    file.path.write_bytes(content[: int(keep * len(content))])
    refused(file, r"expected a linear 2x2 RGB Bayer mosaic in .*merged\.dng, found ")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"CFAPattern": (33422, "B", 4, (0, 1, 2, 1))}, "colour filter array"),
        ({"CFAPattern": (33422, "B", 4, (0, 1, 1, 3))}, "colour filter array"),
        ({"CFAPattern": (33422, "B", 36, (0, 1, 1) * 12)}, "colour filter array"),
        ({"CFAPattern": None}, "colour filter array"),
        ({"CFARepeatPatternDim": (33421, "H", 2, (6, 6))}, "colour filter array"),
        ({"CFARepeatPatternDim": None}, "no CFARepeatPatternDim"),
        ({"CFAPlaneColor": (50710, "B", 3, (2, 1, 0))}, "colour filter array"),
        ({"AsShotNeutral": None}, "no AsShotNeutral"),
        ({"AsShotNeutral": (50728, "2I", 3, (1, 0, 1, 1, 1, 1))}, "AsShotNeutral"),
        ({"AsShotNeutral": (50728, "2I", 3, (0, 1, 1, 1, 1, 1))}, "AsShotNeutral"),
        ({"AsShotNeutral": (50728, "2I", 3, (1, 9999, 1, 1, 1, 1))}, "AsShotNeutral"),
        ({"AsShotNeutral": (50728, "2I", 2, (1, 1, 1, 1))}, "AsShotNeutral"),
        ({"WhiteLevel": (50717, "I", 1, 64)}, "white 64"),
        ({"BlackLevelRepeatDim": (50713, "H", 2, (3, 1))}, "repeat every"),
        ({"BlackLevelRepeatDim": (50713, "H", 2, (1, 1))}, "BlackLevel"),
        ({"LinearizationTable": (50712, "H", 2, (0, 5))}, "linearization"),
        ({"ActiveArea": (50829, "I", 4, (0, 0, 999, 20))}, "active area"),
        ({"ActiveArea": (50829, "I", 4, (20, 0, 2, 20))}, "active area"),
    ],
)
def test_another_kind_of_mosaic_is_refused(
    tmp_path: Path, tags: dict[str, tuple[Any, ...] | None], found: str
) -> None:
    refused(burst(tmp_path, tags=extratags("RGGB", **tags)), f"found .*{found}")


@pytest.mark.unit
def test_what_is_not_a_mosaic_is_refused(tmp_path: Path) -> None:
    file = burst(tmp_path)
    tifffile.imwrite(file.path, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    refused(file, "found no mosaic")
    bare(file.path, np.zeros((8, 8), np.float32), extratags("RGGB"))
    refused(file, "of float32")
    file.path.write_text("a line of text\n" * 99)
    refused(file, "found ")
    file.path.unlink()
    refused(file, "found nothing")


@pytest.mark.unit
@pytest.mark.parametrize("writer", ["bare", "deflate", "lossless jpeg"])
@pytest.mark.parametrize("size", [1000, 60_000, 2**31])
def test_a_header_that_promises_too_much_takes_no_memory(
    tmp_path: Path, writer: str, size: int
) -> None:
    file = burst(tmp_path, writer=WRITERS[writer])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tifffile.TiffFile(file.path, mode="r+") as tiff:
        for name in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[name].overwrite(size, dtype="I")
    refused(file, "found ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.unit
def test_a_tile_that_promises_too_much_takes_no_memory(tmp_path: Path) -> None:
    file = burst(tmp_path, writer=lossless_jpeg)
    content = bytearray(file.path.read_bytes())
    size = content.index(b"\xff\xc3") + 5
    content[size : size + 4] = b"\xff\xff\xff\xff"
    file.path.write_bytes(content)
    refused(file, "a JPEG header of 65535x65535 px")


@pytest.mark.unit
@pytest.mark.parametrize("writer", WRITERS)
def test_no_changed_byte_raises_anything_else(tmp_path: Path, writer: str) -> None:
    file = burst(tmp_path, writer=WRITERS[writer])
    content = file.path.read_bytes()
    generator = np.random.default_rng(11)
    refusals = 0
    # Where tags and offsets are; among the samples a change only makes another picture.
    for position in generator.integers(0, 600, 150):
        changed = bytearray(content)
        changed[position] ^= 1 << int(generator.integers(0, 8))
        file.path.write_bytes(changed)
        try:
            read_training_picture(file)
        except ImageError:
            refusals += 1
    assert refusals > 5
