from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from quantisp.data import Picture, read_picture
from quantisp.errors import ImageError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def pixels(dtype: type[np.uint8 | np.uint16], *, channels: int = 3) -> Pixels:
    """Every value range is used, and no two channels are alike."""
    shape = (20, 30, channels)
    peak = int(np.iinfo(dtype).max)
    return np.random.default_rng(5).integers(0, peak, shape, dtype, endpoint=True)


def save(path: Path, samples: Pixels, **options: object) -> Path:
    Image.fromarray(samples).save(path, **options)
    return path


def png16(path: Path, samples: Pixels) -> Path:
    path.write_bytes(imagecodecs.png_encode(samples))
    return path


# --- reading: each format at its full depth, against what another library wrote ------------------


def tiff(path: Path, samples: Pixels, **options: object) -> Path:
    tifffile.imwrite(path, samples, **({"photometric": "rgb"} | options))
    return path


WRITERS: dict[str, Callable[[Path, Pixels], Path]] = {
    "png8": lambda path, samples: save(path / "p.png", samples),
    "webp": lambda path, samples: save(path / "p.webp", samples, lossless=True, exact=True),
    "tiff8": lambda path, samples: tiff(path / "p.tif", samples),
    "tiff planar": lambda path, samples: tiff(
        path / "p.tif", samples.transpose(2, 0, 1), planarconfig="separate"
    ),
    "tiff big-endian": lambda path, samples: tiff(path / "p.tiff", samples, byteorder=">"),
    "tiff deflate": lambda path, samples: tiff(
        path / "p.tif", samples, compression="zlib", predictor=True
    ),
    "tiff named png": lambda path, samples: tiff(path / "p.png", samples),
    "png16": lambda path, samples: png16(path / "p.png", samples),
}
SIXTEEN = ("png16", "tiff8", "tiff planar", "tiff big-endian", "tiff deflate", "tiff named png")


@pytest.mark.reference
@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "png16"])
@pytest.mark.parametrize("channels", [3, 4])
def test_8_bits_come_back_and_alpha_is_dropped(tmp_path: Path, writer: str, channels: int) -> None:
    samples = pixels(np.uint8, channels=channels)
    picture = read_picture(WRITERS[writer](tmp_path, samples))
    assert picture.samples.dtype == np.uint8
    assert np.array_equal(picture.samples, samples[:, :, :3])
    assert picture.dropped_alpha is (channels == 4)


@pytest.mark.reference
@pytest.mark.parametrize("writer", SIXTEEN)
def test_16_bits_come_back_at_full_depth(tmp_path: Path, writer: str) -> None:
    samples = pixels(np.uint16)
    picture = read_picture(WRITERS[writer](tmp_path, samples))
    assert picture.samples.dtype == np.uint16
    assert np.array_equal(picture.samples, samples)
    assert not picture.dropped_alpha
    # Low bytes carry information: the check would notice a reader that keeps only 8 bits.
    assert not np.array_equal(picture.samples, (samples >> 8) * 257)


@pytest.mark.reference
def test_16_bits_with_alpha(tmp_path: Path) -> None:
    samples = pixels(np.uint16, channels=4)
    for path in (png16(tmp_path / "a.png", samples), tiff(tmp_path / "a.tif", samples)):
        picture = read_picture(path)
        assert np.array_equal(picture.samples, samples[:, :, :3])
        assert picture.dropped_alpha


@pytest.mark.unit
@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_alpha_too(tmp_path: Path, depth: int) -> None:
    samples = pixels(np.uint8 if depth == 8 else np.uint16)
    path = tmp_path / "t.png"
    (save if depth == 8 else png16)(path, samples)
    colour = struct.pack(">3H", *(int(value) for value in samples[0, 0]))
    path.write_bytes(with_chunk(path.read_bytes(), b"tRNS", colour))
    picture = read_picture(path)
    assert np.array_equal(picture.samples, samples)
    assert picture.dropped_alpha


@pytest.mark.reference
def test_jpeg_is_what_libjpeg_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "p.jpg", pixels(np.uint8), quality=90)
    assert np.array_equal(read_picture(path).samples, imagecodecs.jpeg_decode(path.read_bytes()))


@pytest.mark.unit
def test_a_jpeg_lying_on_its_side_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    path = save(tmp_path / "p.jpg", pixels(np.uint8), exif=exif, quality=90)
    stored = imagecodecs.jpeg_decode(path.read_bytes())
    assert np.array_equal(read_picture(path).samples, np.rot90(stored, -1))


@pytest.mark.unit
def test_a_palette_of_colours_is_read(tmp_path: Path) -> None:
    indexed = Image.fromarray(pixels(np.uint8)).quantize(16)
    indexed.save(tmp_path / "p.png")
    indexed.save(tmp_path / "t.png", transparency=0)
    expected = np.asarray(indexed.convert("RGB"))
    opaque, transparent = read_picture(tmp_path / "p.png"), read_picture(tmp_path / "t.png")
    assert np.array_equal(opaque.samples, expected)
    assert np.array_equal(transparent.samples, expected)
    assert (opaque.dropped_alpha, transparent.dropped_alpha) == (False, True)


@pytest.mark.unit
def test_the_tensor_spans_0_to_1() -> None:
    for dtype in (np.uint8, np.uint16):
        peak = int(np.iinfo(dtype).max)
        values = np.array([[[0, 1, peak]]], dtype)
        tensor = Picture(samples=values, dropped_alpha=False).tensor()
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, torch.tensor([0.0, 1.0 / peak, 1.0]).view(1, 3, 1, 1))


@pytest.mark.unit
def test_the_digest_is_of_the_pixels_not_of_the_file(tmp_path: Path) -> None:
    samples = pixels(np.uint8)
    digests = [
        read_picture(path).sha256()
        for path in (save(tmp_path / "a.png", samples), tiff(tmp_path / "b.tif", samples))
    ]
    assert digests[0] == digests[1]
    samples[0, 0, 0] ^= 1
    assert read_picture(save(tmp_path / "c.png", samples)).sha256() != digests[0]


# --- reading: what is refused --------------------------------------------------------------------


def converted(mode: str, suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        Image.fromarray(pixels(np.uint8)).convert(mode).save(folder / f"p{suffix}")
        return folder / f"p{suffix}"

    return write


def grey_palette(folder: Path) -> Path:
    Image.fromarray(pixels(np.uint8)).convert("L").convert("P").save(folder / "p.png")
    return folder / "p.png"


NOT_RGB: dict[str, tuple[Callable[[Path], Path], str]] = {
    "grey": (converted("L", ".png"), "mode L"),
    "grey with alpha": (converted("LA", ".png"), "mode LA"),
    "1 bit": (converted("1", ".png"), "mode 1"),
    "grey jpeg": (converted("L", ".jpg"), "mode L"),
    "cmyk jpeg": (converted("CMYK", ".jpg"), "mode CMYK"),
    "grey palette": (grey_palette, "a grey palette"),
    "16-bit grey": (
        lambda folder: png16(folder / "p.png", pixels(np.uint16, channels=1)[:, :, 0]),
        "16-bit grey",
    ),
    "16-bit grey with alpha": (
        lambda folder: png16(folder / "p.png", pixels(np.uint16, channels=2)),
        "16-bit grey",
    ),
    "grey tiff": (
        lambda folder: tiff(
            folder / "p.tif", pixels(np.uint16, channels=1)[:, :, 0], photometric="minisblack"
        ),
        "minisblack",
    ),
    "cmyk tiff": (
        lambda folder: tiff(
            folder / "p.tif", pixels(np.uint8, channels=4), photometric="separated"
        ),
        "separated",
    ),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", NOT_RGB)
def test_what_is_not_rgb_is_refused(tmp_path: Path, case: str) -> None:
    write, found = NOT_RGB[case]
    with pytest.raises(ImageError, match=f"expected an RGB picture, .* has .*{found}") as caught:
        read_picture(write(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_a_float_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.float32), photometric="rgb")
    with pytest.raises(ImageError, match=r"8 or 16 bits a channel, .* holds float32"):
        read_picture(path)


DAMAGED = {
    "png8": lambda folder: save(folder / "p.png", pixels(np.uint8)),
    "png16": lambda folder: png16(folder / "p.png", pixels(np.uint16)),
    "tiff": lambda folder: tiff(folder / "p.tif", pixels(np.uint16)),
    "tiff deflate": lambda folder: tiff(folder / "p.tif", pixels(np.uint16), compression="zlib"),
    "jpeg": lambda folder: save(folder / "p.jpg", pixels(np.uint8)),
    "webp": lambda folder: save(folder / "p.webp", pixels(np.uint8), lossless=True),
}


@pytest.mark.unit
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    path = DAMAGED[kind](tmp_path)
    content = path.read_bytes()
    read_picture(path)
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["png8", "png16"])
def test_a_flipped_bit_in_a_png_is_noticed(tmp_path: Path, kind: str) -> None:
    path = DAMAGED[kind](tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_picture(path)


@pytest.mark.unit
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_text_is_not_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_text("a line of text\n" * 20)
    with pytest.raises(ImageError, match="cannot be decoded") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="found nothing"):
        read_picture(tmp_path / "p.png")
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_picture(tmp_path)


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """``png`` with a chunk more, right before the pixels."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    position = png.index(b"IDAT") - 4
    return png[:position] + chunk + png[position:]
