"""One raw capture to a picture or to another CFA, composed from the rooms.

::

    codes ──▶ levels, white balance, clip at 1 ──▶ sRGB's curve, where each filter sees one colour
          ──▶ the network, tile by tile ──▶ back to linear light
          ──▶ colour matrix ──▶ sRGB's curve, or none ──▶ 8 or 16 bits ──▶ upright
          └─▶ gains undone ──▶ sampled through the Bayer tile ──▶ codes
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from torch import Tensor, nn

from quantisp.cfa import CFAPattern, mirror_in_phase
from quantisp.cfa.balance import balance
from quantisp.cfa.color import (
    camera_to_srgb,
    encode_srgb,
    most_collected,
)
from quantisp.cfa.domains import from_domain, to_domain
from quantisp.cfa.raw_image import RawImage
from quantisp.inference import ReceptiveField, Window, restore_tiled

__all__ = [
    "TONES",
    "ReadyNetwork",
    "develop",
    "remosaic",
]

log = logging.getLogger(__name__)

TONES = ("srgb", "linear")
BAYER = CFAPattern.named("bayer")

Samples = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]
OnPixels = Callable[[int], None] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadyNetwork:
    """A network on its device, and how a capture meets it.

    Args:
        network: as ``prepare`` returns it.
        field: what an output pixel depends on; None if it is not bounded.
        shift: rows and columns that go before the capture, so that it begins in the phase of
            the network's CFA.
        domain: of its mosaics: one of :data:`quantisp.cfa.domains.DOMAINS`.
        tile_px: side of a tile.
    """

    network: nn.Module
    field: ReceptiveField | None
    shift: tuple[int, int]
    domain: str
    tile_px: int


def develop(
    raw: RawImage,
    ready: ReadyNetwork,
    *,
    neutral: tuple[float, float, float],
    tone: str,
    bits: int,
    on_pixels: OnPixels = None,
) -> Samples:
    """A picture in sRGB's colours, in the orientation of the codes.

    Without a colour matrix, the camera's colours are taken for sRGB's.

    Args:
        raw: the capture.
        ready: the network.
        neutral: the camera's colour of a neutral surface.
        tone: ``srgb``, or ``linear`` for linear light.
        bits: of a sample: 8 or 16.
        on_pixels: called with the number of pixels restored since the last call.

    Raises:
        ImageError: an unusable colour matrix.
    """
    matrix = None if raw.color_matrix is None else camera_to_srgb(raw.color_matrix)
    peak = (1 << bits) - 1
    samples = np.empty((*raw.size, 3), dtype=np.uint8 if bits == 8 else np.uint16)
    for place, rgb in _linear_tiles(raw, ready, neutral):
        colours = rgb if matrix is None else _combined(matrix.tolist(), rgb)
        toned = encode_srgb(colours) if tone == "srgb" else colours.clamp(0.0, 1.0)
        codes = (toned * peak).round().permute(1, 2, 0).numpy()
        rows = slice(place.top, place.top + place.height)
        samples[rows, place.left : place.left + place.width] = codes.astype(samples.dtype)
        if on_pixels is not None:
            on_pixels(place.height * place.width)
    return samples


def remosaic(
    raw: RawImage,
    ready: ReadyNetwork,
    *,
    neutral: tuple[float, float, float],
    on_pixels: OnPixels = None,
) -> RawImage:
    """The capture as a sensor behind the Bayer tile RGGB would have given it, at the same levels.

    Args:
        raw: the capture.
        ready: the network.
        neutral: the camera's colour of a neutral surface, which goes into the result.
        on_pixels: as of :func:`develop`.
    """
    # Of R, G and B, whether or not the CFA has them.
    undo = [n / most_collected(raw.pattern, neutral) for n in neutral]
    black = float(np.mean(raw.black))
    codes = np.empty(raw.size, dtype=np.uint16)
    for place, rgb in _linear_tiles(raw, ready, neutral):
        seen = np.empty((place.height, place.width), dtype=np.float32)
        for y, x in itertools.product(range(2), range(2)):
            colour = "RGB".index(BAYER.letter(place.top + y, place.left + x))
            seen[y::2, x::2] = rgb[colour, y::2, x::2].numpy() * np.float32(undo[colour])
        levels = np.clip(np.rint(black + seen * (raw.white - black)), 0, (1 << raw.bits) - 1)
        rows = slice(place.top, place.top + place.height)
        codes[rows, place.left : place.left + place.width] = levels.astype(np.uint16)
        if on_pixels is not None:
            on_pixels(place.height * place.width)
    matrix = raw.color_matrix
    return RawImage(
        codes=codes,
        pattern=BAYER,
        black=(black,) * 4,
        white=raw.white,
        bits=raw.bits,
        as_shot_neutral=neutral,
        color_matrix=None if matrix is None else np.asarray(matrix)[:3],
        orientation=raw.orientation,
        metadata=raw.metadata,
    )


def _combined(matrix: list[list[float]], rgb: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """A matrix product that adds up in one order at every size."""
    red, green, blue = rgb
    return torch.stack([a * red + b * green + c * blue for a, b, c in matrix])


def _linear_tiles(
    raw: RawImage, ready: ReadyNetwork, neutral: tuple[float, float, float]
) -> Iterator[tuple[Window, Float[Tensor, "3 h w"]]]:
    """Balanced linear RGB, tile by tile, in places of the capture."""
    below, right = ready.shift
    mosaic = _Mosaic(raw, neutral, ready)
    size = (raw.size[0] + below, raw.size[1] + right)
    tiles = restore_tiled(
        ready.network, mosaic.read, size, field=ready.field, tile_px=ready.tile_px
    )
    for window, rgb in tiles:
        top, left = max(window.top - below, 0), max(window.left - right, 0)
        inside = rgb[0, :, top + below - window.top :, left + right - window.left :]
        if inside.numel():
            place = Window(top=top, left=left, height=inside.shape[1], width=inside.shape[2])
            yield place, from_domain(ready.domain, inside)


class _Mosaic:
    """A capture as the network meets it, one window at a time."""

    def __init__(
        self, raw: RawImage, neutral: tuple[float, float, float], ready: ReadyNetwork
    ) -> None:
        self.raw, self.ready = raw, ready
        self.black, self.scale = balance(raw, neutral)

    def read(self, window: Window) -> Float[Tensor, "1 1 h w"]:
        """Levels, white balance and domain of a window, counted from before the shift."""
        height, width = self.raw.size
        tall, wide = self.raw.pattern.period
        first = window.top - self.ready.shift[0], window.left - self.ready.shift[1]
        rows = _sources(first[0], window.height, height, tall)
        columns = _sources(first[1], window.width, width, wide)
        codes = self.raw.codes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        codes = codes[np.ix_(rows - rows.min(), columns - columns.min())]
        place = np.ix_(rows % tall, columns % wide)
        values = torch.from_numpy(
            (codes.astype(np.float32) - self.black[place]) * self.scale[place]
        )
        return to_domain(self.ready.domain, values)[None, None]


def _sources(first: int, count: int, size: int, period: int) -> np.ndarray:
    places = range(first, first + count)
    return np.array([mirror_in_phase(position, size, period) for position in places])
