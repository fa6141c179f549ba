"""Sampling RGB through a colour filter array, its adjoint, and padding that keeps the phase."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quantisp.cfa.patterns import CFAPattern
from quantisp.errors import PatternError

__all__ = ["adjoint_mosaic", "masks", "mosaic", "pad_to_periods", "responses", "sparse_planes"]


def mosaic(rgb: Float[Tensor, "n 3 h w"], pattern: CFAPattern) -> Float[Tensor, "n 1 h w"]:
    """What the sensor behind ``pattern`` sees of ``rgb``.

    Args:
        rgb: any range; the mosaic has the same. With W = (R + G + B) / 3 a white sample is the
            mean of the three values as they are given (for sRGB values: of the coded values).
        pattern: the tile at pixel (0, 0); h and w need not be whole periods.
    Returns:
        One sample a pixel, in the dtype and on the device of ``rgb``.
    Raises:
        PatternError: ``rgb`` is not (n, 3, h, w) in floating point.
    """
    _check(rgb, channels=3)
    seen = responses(pattern, rgb.shape[2], rgb.shape[3], like=rgb)
    return (rgb * seen).sum(dim=1, keepdim=True)


def adjoint_mosaic(
    samples: Float[Tensor, "n 1 h w"], pattern: CFAPattern
) -> Float[Tensor, "n 3 h w"]:
    """Spread samples over the colours that they saw, by the same weights.

    The adjoint of the mosaic: <mosaic(x), y> = <x, adjoint_mosaic(y)>.

    Raises:
        PatternError: ``samples`` is not (n, 1, h, w) in floating point.
    """
    _check(samples, channels=1)
    return samples * responses(pattern, samples.shape[2], samples.shape[3], like=samples)


def responses(
    pattern: CFAPattern, height: int, width: int, *, like: Tensor
) -> Float[Tensor, "3 h w"]:
    """The weight of R, G and B in each pixel's sample, with the dtype and device of ``like``."""
    tile = torch.tensor(
        [[pattern.response(letter) for letter in row] for row in pattern.tile],
        dtype=like.dtype,
        device=like.device,
    )
    return _repeat(tile.permute(2, 0, 1), height, width)


def masks(
    pattern: CFAPattern, height: int, width: int, *, device: torch.device | str = "cpu"
) -> Bool[Tensor, "letters h w"]:
    """True where the letter stands; one plane for each of ``pattern.letters``, in that order."""
    tile = torch.tensor(
        [[[c == letter for c in row] for row in pattern.tile] for letter in pattern.letters],
        device=device,
    )
    return _repeat(tile, height, width)


def sparse_planes(
    samples: Float[Tensor, "n 1 h w"], pattern: CFAPattern
) -> Float[Tensor, "n letters h w"]:
    """One plane a letter: the samples where the letter stands, zero elsewhere."""
    where = masks(pattern, samples.shape[2], samples.shape[3], device=samples.device)
    return samples * where.to(samples.dtype)


def pad_to_periods(
    samples: Float[Tensor, "n c h w"], *, multiple: int, period: tuple[int, int]
) -> Float[Tensor, "n c h2 w2"]:
    """Lengthen a mosaic at the bottom and right to multiples of ``multiple`` px.

    A new pixel takes the value one or more whole periods above or left of it, so that every
    sample still stands under its own filter (mirroring would not keep the phase of a 4x4 tile).

    Raises:
        PatternError: the mosaic is smaller than one period.
    """
    height, width = samples.shape[2:]
    if height < period[0] or width < period[1]:
        raise PatternError(
            f"the CFA repeats every {period[0]}x{period[1]} px, the mosaic is {height}x{width}: "
            "it must hold at least one period"
        )
    rows = _periodic_index(height, multiple, period[0])
    columns = _periodic_index(width, multiple, period[1])
    if len(rows) > height:
        samples = samples[:, :, torch.tensor(rows, device=samples.device)]
    if len(columns) > width:
        samples = samples[:, :, :, torch.tensor(columns, device=samples.device)]
    return samples


def _check(picture: Tensor, *, channels: int) -> None:
    if picture.ndim != 4 or picture.shape[1] != channels:
        raise PatternError(
            f"expected a batch (n, {channels}, h, w), found {tuple(picture.shape)}: reshape it"
        )
    # In integers a response of 1/3 would be 0.
    if not picture.is_floating_point():
        raise PatternError(
            f"expected floating point, found {picture.dtype}: divide by the white level first"
        )


def _periodic_index(size: int, multiple: int, period: int) -> list[int]:
    padded = math.ceil(size / multiple) * multiple
    index = list(range(size))
    for position in range(size, padded):
        index.append(index[position - period])
    return index


def _repeat(tile: Tensor, height: int, width: int) -> Tensor:
    rows = math.ceil(height / tile.shape[1])
    columns = math.ceil(width / tile.shape[2])
    return tile.repeat(1, rows, columns)[:, :height, :width]
