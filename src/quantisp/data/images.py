"""Finding pictures on disk and reading them at their full depth."""

from __future__ import annotations

import glob
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from PIL import Image, ImageOps
from torch import Tensor

from quantisp.data.picture_files import upright
from quantisp.errors import ImageError

__all__ = ["SAMPLE", "SUFFIXES", "ImageFile", "Picture", "as_8_bits", "find_images", "read_picture"]

log = logging.getLogger(__name__)

# The word that stands for the packaged photographs.
SAMPLE = "sample"
SAMPLE_FILES = ("astronaut.png", "coffee.png", "chelsea.png")
# What Pillow may decode; it knows formats that start other programs.
FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")

Samples = UInt8[np.ndarray, "_ _ 3"] | UInt16[np.ndarray, "_ _ 3"]


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A picture on disk and the name that stands for it in results, unique within its set."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it was stored.

    Args:
        samples: (h, w, 3), uint8 or uint16.
        dropped_alpha: the file had transparency, which is not in ``samples``.
    """

    samples: Samples
    dropped_alpha: bool

    def tensor(self) -> Float[Tensor, "1 3 h w"]:
        """RGB in [0, 1], float32: 8-bit values divided by 255, 16-bit values by 65535."""
        peak = np.iinfo(self.samples.dtype).max
        values = self.samples.astype(np.float32) / np.float32(peak)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]

    def sha256(self) -> str:
        """The digest of the pixels: equal for the same picture in another file format."""
        digest = hashlib.sha256(f"{self.samples.shape} {self.samples.dtype} ".encode())
        digest.update(np.ascontiguousarray(self.samples).tobytes())
        return digest.hexdigest()


def as_8_bits(picture: Picture) -> Picture:
    """The upper eight bits of a 16-bit picture; an 8-bit one as it is."""
    if picture.samples.dtype != np.uint16:
        return picture
    return replace(picture, samples=(picture.samples >> 8).astype(np.uint8))


def find_images(
    sources: Sequence[str | Path], *, suffixes: Sequence[str] = SUFFIXES
) -> tuple[ImageFile, ...]:
    """The pictures behind files, folders (searched to the bottom), globs, or the word ``sample``.

    Args:
        sources: of pictures.
        suffixes: of the files in folders that are pictures, in lower case.

    Returns:
        In the order of the sources, sorted inside a folder or glob. The name of a picture is its
        file's stem, or its path below the folder where stems collide.
    Raises:
        ImageError: a source does not exist or holds no picture.
    """
    found: dict[Path, str] = {}
    seen: set[Path] = set()
    for source in sources:
        try:
            for path, relative in _expand(str(source), suffixes):
                if path.resolve() not in seen:
                    seen.add(path.resolve())
                    found[path] = relative
        except OSError as error:
            raise ImageError(
                f"cannot read {source} ({error.strerror}): correct the path"
            ) from error
    if not found:
        raise ImageError("expected pictures, found no file or folder named: name some")
    stems = [path.stem for path in found]
    names = stems if len(set(stems)) == len(stems) else list(found.values())
    if len(set(names)) < len(names):
        names = [str(path) for path in found]
    # A file's name may be any bytes; results are UTF-8.
    printable = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    return tuple(ImageFile(name=n, path=path) for n, path in zip(printable, found, strict=True))


def _expand(source: str, suffixes: Sequence[str]) -> list[tuple[Path, str]]:
    if source == SAMPLE:
        return _sample_photographs()
    if not source:
        raise ImageError("expected a picture, a folder or a glob, found an empty name: correct it")
    path = Path(source).expanduser()
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if _is_picture(p, path, suffixes))
        if not below:
            raise ImageError(
                f"expected pictures ({', '.join(suffixes)}) in the folder {source}, found none: "
                "name another folder"
            )
        return [(p, p.relative_to(path).as_posix()) for p in below]
    if path.is_file():
        return [(path, path.name)]
    matches = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())  # noqa: PTH207
    if not matches:
        raise ImageError(
            f"expected a picture, a folder, a glob or the word {SAMPLE!r}, but nothing is at "
            f"{source}: correct the path"
        )
    return [(p, p.as_posix()) for p in matches]


def _is_picture(path: Path, root: Path, suffixes: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in suffixes and not hidden and path.is_file()


def _sample_photographs() -> list[tuple[Path, str]]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    missing = [name for name in SAMPLE_FILES if not (folder / name).is_file()]
    if missing:
        raise ImageError(
            f"expected scikit-image's photographs {', '.join(SAMPLE_FILES)} in its package, "
            f"{', '.join(missing)} is not there: reinstall scikit-image, or pass --images"
        )
    return [(folder / name, name) for name in SAMPLE_FILES]


def read_picture(path: Path) -> Picture:
    """Read an RGB picture: PNG, TIFF, JPEG or WebP with 8 or 16 bits a channel.

    Raises:
        ImageError: the file is missing, damaged, or not RGB.
    """
    try:
        samples, dropped_alpha = _decode(path)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"expected a picture at {path}, found nothing: correct the path") from None
    # Each decoder raises its own kinds on damaged data, SyntaxError and struct.error among them.
    except Exception as error:
        raise ImageError(
            f"expected a whole picture, {path} cannot be decoded ({error}): "
            "replace the file, or leave it out"
        ) from error
    return Picture(samples=samples, dropped_alpha=dropped_alpha)


def _decode(path: Path) -> tuple[Samples, bool]:
    head = path.read_bytes()[:32]
    if path.suffix.lower() in (".tif", ".tiff") or head[:4] in (b"II*\0", b"MM\0*"):
        return _decode_tiff(path)
    is_png = head[:8] == b"\x89PNG\r\n\x1a\n"
    if is_png and len(head) > 25 and head[24] == 16:
        return _decode_png16(path, colour_type=head[25])
    with Image.open(path, formats=FORMATS) as image:
        image.load()
        if image.mode not in ("RGB", "RGBA", "RGBX", "P", "PA"):
            raise _not_rgb(path, f"mode {image.mode}")
        dropped_alpha = image.mode in ("RGBA", "PA") or "transparency" in image.info
        if image.mode in ("P", "PA") and image.palette is not None and _grey_palette(image):
            raise _not_rgb(path, "a grey palette")
        upright = ImageOps.exif_transpose(image)
        # By way of RGBA, so that a palette's transparent colours keep their RGB.
        rgba = upright.convert("RGBA") if dropped_alpha else upright.convert("RGB")
        return np.asarray(rgba)[:, :, :3].copy(), dropped_alpha


def _grey_palette(image: Image.Image) -> bool:
    colours = np.asarray(image.convert("RGB"))
    return bool((colours == colours[:, :, :1]).all())


def _decode_png16(path: Path, colour_type: int) -> tuple[Samples, bool]:
    import imagecodecs

    if colour_type not in (2, 6):
        raise _not_rgb(path, "16-bit grey")
    samples: np.ndarray[Any, Any] = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    # A transparent colour (tRNS) is decoded to a fourth channel too.
    return samples[:, :, :3].copy(), samples.shape[2] == 4


def _decode_tiff(path: Path) -> tuple[Samples, bool]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) > 1:
            log.warning("%s: %d pages after the first are left out", path, len(tiff.pages) - 1)
        page: Any = tiff.pages[0]
        photometric = page.photometric.name
        orientation = page.tags.valueof("Orientation", 1)
        bits = page.bitspersample
        jpeg = page.compression.name == "JPEG"
        samples: np.ndarray[Any, Any] = page.asarray()
        if page.axes == "SYX":
            samples = samples.transpose(1, 2, 0)
    # The JPEG decoder gives RGB; YCbCr that is stored otherwise stays as it is.
    colours = ("RGB", "YCBCR") if jpeg else ("RGB",)
    if photometric not in colours or samples.ndim != 3 or samples.shape[2] not in (3, 4):
        raise _not_rgb(path, f"{photometric.lower()} of shape {samples.shape}")
    if samples.dtype not in (np.uint8, np.uint16) or bits not in (8, 16):
        found = f"{bits} bits" if samples.dtype == np.uint16 else samples.dtype
        raise ImageError(
            f"expected 8 or 16 bits a channel, {path} holds {found}: convert it to 16 bits"
        )
    turned = upright(samples[:, :, :3], orientation)
    return np.ascontiguousarray(turned), samples.shape[2] == 4


def _not_rgb(path: Path, found: str) -> ImageError:
    return ImageError(f"expected an RGB picture, {path} has {found}: convert it to RGB")
