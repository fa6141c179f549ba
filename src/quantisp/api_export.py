"""Integer networks written for hardware and for other programs, composed from the rooms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.api import find_model
from quantisp.cfa import CFAPattern, mosaic
from quantisp.cfa.patterns import parse_pattern
from quantisp.cfa.raw import RAW_SUFFIXES, read_raw
from quantisp.cfa.raw.sidecar import sidecar_path
from quantisp.cfa.raw_image import linear
from quantisp.data import SAMPLE, SUFFIXES, find_images, read_picture
from quantisp.errors import ImageError, ModelError, PatternError, SettingError
from quantisp.files import check_replaceable
from quantisp.models import Origin, packaged_models
from quantisp.quantization.export import (
    MARKER,
    SIZED,
    ExportRequest,
    Sample,
    check_sample_size,
    find_writer,
    input_channels,
    size_step,
    write_export,
)
from quantisp.quantization.integer import IntegerExecutor, IntegerNetwork, load_integer_network

__all__ = ["Crop", "Exported", "export"]

SAMPLE_PX = 32
COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of a picture, in px."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        path: the folder.
        file_format: of what is in it.
        name: of the network, as it is called there.
        sample: what it was run on.
        verified: what was compared, in words.
        facts: of the format.
    """

    path: Path
    file_format: str
    name: str
    sample: Mapping[str, Any]
    verified: str
    facts: Mapping[str, Any]


def export(
    network: str | Path | IntegerNetwork,
    out: str | Path,
    *,
    file_format: str,
    image: str | Path | None = None,
    crop: Crop | None = None,
    pattern: str | CFAPattern | None = None,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    unverified: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Exported:
    """Write an integer network in a format of others, run what was written, and compare.

    Args:
        network: the folder of one, or one.
        out: the folder to make; an earlier export in it is replaced.
        file_format: a name of ``quantisp.quantization.export.WRITERS``.
        image: what it is verified on, and vectors are made of: an RGB picture, a raw file, or a
            ``.npy`` file of floats (h, w) or (c, h, w), the network's input itself; None is a
            packaged photograph.
        crop: of the mosaic or the picture; None is one of 32x32 px or so in its middle.
        pattern: the CFA of a network whose folder names none.
        name: of the network there; None is that of its folder.
        size: the only height and width that the export is for, of a format of
            ``quantisp.quantization.export.SIZED``; None is every one that the network runs at.
        unverified: write even where nothing here can run what is written.
        on_progress: called with a stage, what is done of it, and all of it.

    Raises:
        InputError: an unusable network, picture, setting or place; nothing is written.
        RunError: what was written gives something else than the network; nothing is left of it.
    """
    find_writer(file_format)
    if size is not None and file_format not in SIZED:
        raise SettingError(
            f"expected --size with a format among {', '.join(SIZED)}, found {file_format}: "
            "leave it out"
        )
    out = Path(out)
    check_replaceable(out, MARKER)
    integers, called = _network(network, name)
    # Refuses what no executor can run.
    IntegerExecutor(integers)
    sample = _sample(integers, image, crop, pattern, size)
    request = ExportRequest(
        network=integers, sample=sample, name=called, size=size, unverified=unverified
    )
    if on_progress is not None:
        request = replace(request, on_progress=on_progress)
    report = write_export(file_format, request, out)
    return Exported(
        path=out,
        file_format=file_format,
        name=called,
        sample=sample.described(),
        verified=report.verified,
        facts=report.facts,
    )


def _network(network: str | Path | IntegerNetwork, name: str | None) -> tuple[IntegerNetwork, str]:
    if isinstance(network, IntegerNetwork):
        return network, _identifier(name or network.origin.get("model", "network"))
    path = Path(network)
    if not path.is_dir() and path.suffix != ".json":
        found = "a file" if path.exists() else "nothing"
        raise ModelError(
            f"expected the folder of an integer network, found {found} at {path}: make one with "
            "quantisp quantize --activation-bits 8 --out FOLDER, a name without an ending"
        )
    folder = path if path.is_dir() else path.parent
    return load_integer_network(path), _identifier(name or folder.resolve().name)


def _identifier(name: str) -> str:
    """A name that C and Verilog take, too."""
    found = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower() or "network"
    return found if found[0].isalpha() else f"network_{found}"


def _sample(
    network: IntegerNetwork,
    image: str | Path | None,
    crop: Crop | None,
    pattern: str | CFAPattern | None,
    only: tuple[int, int] | None,
) -> Sample:
    channels = input_channels(network)
    if only is not None:
        check_sample_size(network, (1, channels, *only))
    cfa = _pattern(network, pattern)
    whole, source, cfa = _whole(SAMPLE if image is None else image, channels, cfa)
    if whole.shape[1] != channels:
        raise ImageError(
            f"expected an input of {channels} channels, {source} gives {whole.shape[1]}: give a "
            f".npy file of floats ({channels}, h, w) as --image"
        )
    period = (1, 1) if cfa is None else cfa.period
    size = (whole.shape[2], whole.shape[3])
    fits = only is not None and only[0] <= size[0] and only[1] <= size[1]
    place = crop or _middle(network, channels, size, period, only if fits else None)
    _check_crop(place, source, size, period)
    x = whole[:, :, place.y : place.y + place.height, place.x : place.x + place.width]
    check_sample_size(network, tuple(x.shape))
    return Sample(x=x.contiguous(), source=source, x_px=place.x, y_px=place.y)


def _pattern(network: IntegerNetwork, pattern: str | CFAPattern | None) -> CFAPattern | None:
    if pattern is not None:
        return parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if "preset" in network.origin:
        return Origin.from_texts(Path("network.json"), network.origin).pattern
    # Of a folder of an earlier version; only what comes with the package is loaded by its name.
    model = network.origin.get("model", "")
    return find_model(model).pattern if model in packaged_models() else None


def _whole(
    image: str | Path, channels: int, cfa: CFAPattern | None
) -> tuple[Float[Tensor, "1 c h w"], str, CFAPattern | None]:
    """A picture as a network of so many channels takes it, its name, and its CFA."""
    path = Path(image)
    if path.suffix.lower() == ".npy" and not sidecar_path(path).is_file():
        return _read_floats(path), path.name, cfa
    file = find_images([image], suffixes=sorted({*SUFFIXES, *RAW_SUFFIXES}))[0]
    if file.path.suffix.lower() in SUFFIXES and not sidecar_path(file.path).is_file():
        rgb = read_picture(file.path).tensor()
        if channels != 1:
            return rgb, file.name, None
        if cfa is None:
            raise PatternError(
                "expected a CFA to sample the picture through, the network's folder names "
                "none: give --pattern"
            )
        return mosaic(rgb, cfa), file.name, cfa
    raw = read_raw(file.path)
    if cfa is not None and raw.pattern != cfa:
        raise PatternError(
            f"expected a capture through {cfa}, {file.path} is of {raw.pattern}: give another one"
        )
    return torch.from_numpy(linear(raw))[None, None], file.name, raw.pattern


def _read_floats(path: Path) -> Float[Tensor, "1 c h w"]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(
            f"expected floats as .npy, {path} cannot be read ({str(error)[:80]}): correct --image"
        ) from error
    numbers = isinstance(values, np.ndarray) and values.dtype.kind == "f"
    if not numbers or values.ndim not in (2, 3) or not np.isfinite(values).all():
        raise ImageError(
            f"expected finite floats (h, w) or (c, h, w) in {path}, found something else: give a "
            "raw file with its sidecar, or the network's input itself"
        )
    picture = values.astype(np.float32).reshape(1, -1, *values.shape[-2:])
    return torch.from_numpy(picture)


def _middle(
    network: IntegerNetwork,
    channels: int,
    size: tuple[int, int],
    period: tuple[int, int],
    only: tuple[int, int] | None,
) -> Crop:
    """The middle of a picture, in the size that is run at or one near 32x32 px."""
    step = size_step(network, channels)
    wanted = network.graph.size or only or (-(-SAMPLE_PX // step) * step,) * 2
    # What does not fit is refused below.
    y, x = (
        max((whole - part) // 2 // p * p, 0)
        for whole, part, p in zip(size, wanted, period, strict=True)
    )
    return Crop(x=x, y=y, width=wanted[1], height=wanted[0])


def _check_crop(crop: Crop, source: str, size: tuple[int, int], period: tuple[int, int]) -> None:
    height, width = size
    if not (
        0 <= crop.x <= width - crop.width
        and 0 <= crop.y <= height - crop.height
        and min(crop.width, crop.height) > 0
    ):
        raise SettingError(
            f"expected a crop within the {width}x{height} px of {source}, found "
            f"{crop.width}x{crop.height} px at {crop.x},{crop.y}: correct --crop"
        )
    if crop.y % period[0] or crop.x % period[1]:
        raise SettingError(
            f"expected a crop that begins with the CFA's period of {period[1]}x{period[0]} px, "
            f"found {crop.x},{crop.y}: correct --crop"
        )
