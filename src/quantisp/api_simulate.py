"""Simulated captures of any CFA, composed from the rooms: pictures or Bayer raw in, raw out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from quantisp.cfa.raw import RAW_SUFFIXES, RawOptions, read_raw, write_raw
from quantisp.cfa.raw.sidecar import sidecar_path
from quantisp.cfa.raw_image import RawImage
from quantisp.cfa.simulation import (
    NEUTRAL,
    SRGB_MATRIX,
    SensorSettings,
    bin_bayer,
    grey_world,
    saturated,
    simulate_raw,
    srgb_to_linear,
)
from quantisp.data import SUFFIXES, ImageFile, find_images, read_picture
from quantisp.errors import ImageError, SettingError
from quantisp.files import make_folder

__all__ = ["Simulated", "simulate"]

FORMATS = ("dng", "npy", "png")
CURVES = ("srgb", "linear")
LARGEST_GAIN = 64.0


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """One capture that was written.

    Args:
        name: of the picture.
        path: of the capture.
        height, width: in px.
        neutral: the camera's RGB of a neutral surface.
        neutral_from: where it comes from: ``given``, ``as shot`` or ``grey world``.
        saturated: the share of each letter's samples that are saturated.
        source: ``RGB picture`` or ``Bayer capture, binned``.
    """

    name: str
    path: Path
    height: int
    width: int
    neutral: tuple[float, float, float]
    neutral_from: str
    saturated: dict[str, float]
    source: str


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """Linear light, white-balanced, and the camera that saw it."""

    rgb: Float32[np.ndarray, "h w 3"]
    neutral: tuple[float, float, float]
    neutral_from: str
    color_matrix: Float[np.ndarray, "3 3"] | None
    orientation: int
    source: str


def simulate(
    images: Sequence[str | Path],
    settings: SensorSettings,
    out: Path,
    *,
    white_balance_gains: tuple[float, float, float] | None = None,
    raw_options: RawOptions | None = None,
    curve: str | None = None,
    file_format: str = "dng",
    notes: dict[str, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Simulated, ...]:
    """Write what a sensor would give of pictures, or of scenes that a Bayer sensor saw.

    A Bayer capture becomes linear RGB of half its size, one pixel for each 2x2 cell.

    Args:
        images: RGB pictures or raw files; files, folders, globs, or the word ``sample``.
        settings: the sensor; each picture has noise of its own, by the seed and its name.
        out: the folder to write into.
        white_balance_gains: what R, G, B of the camera are multiplied by to make neutral surfaces
            grey; None is 1 for pictures, and what a capture says itself (as shot), else what makes
            the scene grey in the mean.
        raw_options: of raw files that do not describe themselves.
        curve: of RGB pictures, ``srgb`` or ``linear``; sRGB where None.
        file_format: ``dng``, or ``npy`` or ``png`` (16 bits) with a sidecar.
        notes: into the captures' metadata.
        on_progress: called with the number of pictures done, and of all.

    Raises:
        InputError: an unusable picture, setting or place; what was written before it is whole.
    """
    _check(white_balance_gains, file_format, curve)
    found = find_images(images, suffixes=sorted({*SUFFIXES, *RAW_SUFFIXES}))
    targets = _targets(found, out, file_format)
    make_folder(out)
    written: list[Simulated] = []
    for file, target in zip(found, targets, strict=True):
        if on_progress is not None:
            on_progress(len(written), len(found))
        scene = _scene(file, white_balance_gains, raw_options or RawOptions(), curve)
        own = replace(settings, seed=settings.seed << 32 | zlib.crc32(file.name.encode()))
        written.append(_write(file, scene, own, target, notes or {}))
    if on_progress is not None:
        on_progress(len(written), len(found))
    return tuple(written)


def _write(
    file: ImageFile, scene: _Scene, settings: SensorSettings, target: Path, notes: dict[str, str]
) -> Simulated:
    try:
        raw = simulate_raw(
            scene.rgb,
            settings,
            neutral=scene.neutral,
            color_matrix=scene.color_matrix,
            orientation=scene.orientation,
            metadata={
                "camera": "simulated",
                "source": f"{scene.source}: {file.path.name}",
                **notes,
            },
        )
    except ImageError as error:
        raise ImageError(f"{file.path}: {error}") from error
    write_raw(target, raw)
    height, width = raw.size
    return Simulated(
        name=file.name,
        path=target,
        height=height,
        width=width,
        neutral=scene.neutral,
        neutral_from=scene.neutral_from,
        saturated=saturated(raw),
        source=scene.source,
    )


def _scene(
    file: ImageFile,
    gains: tuple[float, float, float] | None,
    options: RawOptions,
    curve: str | None,
) -> _Scene:
    if not _is_raw(file.path, options):
        values = read_picture(file.path).tensor()[0].permute(1, 2, 0).numpy()
        neutral = NEUTRAL if gains is None else _neutral(gains)
        return _Scene(
            rgb=values if curve == "linear" else srgb_to_linear(values),
            neutral=neutral,
            neutral_from="given",
            color_matrix=np.array(neutral)[:, None] * SRGB_MATRIX,
            orientation=1,
            source="RGB picture",
        )
    if curve is not None:
        raise SettingError(
            f"expected --curve for RGB pictures alone, found the raw file {file.path}: leave it out"
        )
    capture = read_raw(file.path, options)
    try:
        rgb = bin_bayer(capture)
        neutral, origin = _capture_neutral(capture, rgb, gains)
    except ImageError as error:
        raise ImageError(f"{file.path}: {error}") from error
    matrix = capture.color_matrix
    return _Scene(
        rgb=rgb / np.array(neutral, dtype=np.float32),
        neutral=neutral,
        neutral_from=origin,
        color_matrix=None if matrix is None else matrix[:3],
        orientation=capture.orientation,
        source="Bayer capture, binned",
    )


def _is_raw(path: Path, options: RawOptions) -> bool:
    """PNG and TIFF are captures where something describes them as such."""
    described = bool(options.given()) or sidecar_path(path).is_file()
    return described or path.suffix.lower() in RAW_SUFFIXES - set(SUFFIXES)


def _capture_neutral(
    capture: RawImage,
    rgb: Float32[np.ndarray, "h w 3"],
    gains: tuple[float, float, float] | None,
) -> tuple[tuple[float, float, float], str]:
    if gains is not None:
        return _neutral(gains), "given"
    if capture.as_shot_neutral is not None:
        return _largest_is_1(capture.as_shot_neutral), "as shot"
    return _largest_is_1(grey_world(rgb)), "grey world"


def _neutral(gains: tuple[float, float, float]) -> tuple[float, float, float]:
    return _largest_is_1((1 / gains[0], 1 / gains[1], 1 / gains[2]))


def _largest_is_1(neutral: tuple[float, float, float]) -> tuple[float, float, float]:
    largest = max(neutral)
    return (neutral[0] / largest, neutral[1] / largest, neutral[2] / largest)


def _check(gains: tuple[float, float, float] | None, file_format: str, curve: str | None) -> None:
    if gains is not None and not all(1 / LARGEST_GAIN <= gain <= LARGEST_GAIN for gain in gains):
        raise SettingError(
            f"expected white-balance gains from 1/{LARGEST_GAIN:.0f} to {LARGEST_GAIN:.0f}, found "
            f"{', '.join(f'{gain:g}' for gain in gains)}: correct --white-balance-gains"
        )
    for value, kind, choices in (
        (file_format, "format", FORMATS),
        (curve or "srgb", "curve", CURVES),
    ):
        if value not in choices:
            raise SettingError(
                f"expected a {kind} among {', '.join(choices)}, found {value!r}: correct --{kind}"
            )


def _targets(found: Sequence[ImageFile], out: Path, file_format: str) -> list[Path]:
    names = [file.name.strip("/").replace("/", "-") for file in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ImageError(
            f"expected pictures of different names, found {twice[0]} twice: "
            "rename one, or run twice"
        )
    targets = [out / f"{name}.{file_format}" for name in names]
    inputs = {file.path.resolve() for file in found}
    over = next((target for target in targets if target.resolve() in inputs), None)
    if over is not None:
        raise SettingError(
            f"expected another folder than that of the pictures, found {over} to be written over: "
            "choose another --out"
        )
    return targets
