"""The same places of some pictures at several widths, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.evaluation.degradation import Degradation
from quantisp.evaluation.measure import Measurement, capped_psnr_db
from quantisp.evaluation.pictures import Sample, StudyPicture
from quantisp.inference import Window, receptive_field, restore_window
from quantisp.metrics import TILE_PX, mean_squared_error, rounded_to_8_bits, tile_starts
from quantisp.records import Crop, CropPanel, Setting

__all__ = ["CROP_BITS", "CropPlace", "cut_crops", "find_places", "parse_place"]

# The widths that the paper shows.
CROP_BITS = (4, 6, 8, 10)
PLACES = 3
# Places are looked for at the widest of the shown widths that still costs this much.
VISIBLE_DROP_DB = 0.1

Outcomes = Mapping[str, Measurement]


@dataclass(frozen=True, kw_only=True)
class CropPlace:
    """A picture and a window of it."""

    image: str
    window: Window


def parse_place(text: str, pictures: Sequence[StudyPicture]) -> CropPlace:
    """``NAME`` (its middle) or ``NAME:TOP,LEFT``.

    Raises:
        SettingError: no such picture, or the place is outside it.
    """
    by_name = {picture.name: picture for picture in pictures}
    name, _, corner = (text, "", "") if text in by_name else text.rpartition(":")
    name = name or text
    picture = by_name.get(name)
    if picture is None:
        raise SettingError(
            f"expected a picture of this study in --crop, found {name!r}: choose one of "
            f"{', '.join(p.name for p in pictures[:30])}"
        )
    height, width = min(TILE_PX, picture.height), min(TILE_PX, picture.width)
    try:
        top, left = (
            (int(part) for part in corner.split(","))
            if corner
            else ((picture.height - height) // 2, (picture.width - width) // 2)
        )
    except ValueError:
        raise SettingError(
            f"expected --crop NAME or NAME:TOP,LEFT in px, found {text!r}: for example {name}:0,0"
        ) from None
    if not (0 <= top <= picture.height - height and 0 <= left <= picture.width - width):
        raise SettingError(
            f"expected a crop of {height}x{width} px inside {name} ({picture.height}x"
            f"{picture.width} px), found top {top}, left {left}: move it inside"
        )
    return CropPlace(image=name, window=Window(top=top, left=left, height=height, width=width))


def find_places(
    pictures: Sequence[StudyPicture],
    references: Outcomes,
    outcomes: Sequence[tuple[Setting, Outcomes]],
) -> list[CropPlace]:
    """The 128x128 tiles, one a picture, to whose squared error few bits add most."""
    measured = _telling_width(references, outcomes)
    places: list[tuple[float, CropPlace]] = []
    for picture in pictures:
        before = torch.tensor(references[picture.name].tile_mse)
        added = torch.tensor(measured[picture.name].tile_mse) - before
        row, column = divmod(int(added.argmax()), added.shape[1])
        place = CropPlace(image=picture.name, window=_tile(picture, row, column))
        places.append((float(added.max()), place))
    places.sort(key=lambda place: -place[0])
    return [place for _, place in places[:PLACES]]


def _tile(picture: StudyPicture, row: int, column: int) -> Window:
    return Window(
        top=tile_starts(picture.height)[row],
        left=tile_starts(picture.width)[column],
        height=min(TILE_PX, picture.height),
        width=min(TILE_PX, picture.width),
    )


def _telling_width(references: Outcomes, outcomes: Sequence[tuple[Setting, Outcomes]]) -> Outcomes:
    """The measurements at the width to look at: where the damage can be seen, but is not all."""
    first = outcomes[0][0]
    group = sorted(
        (
            (setting.width, measured)
            for setting, measured in outcomes
            if setting.is_uniform and setting.series == first.series
        ),
        key=lambda member: member[0],
        reverse=True,
    )
    for bits, measured in group:
        drop = sum(references[name].psnr_db - m.psnr_db for name, m in measured.items())
        if bits in CROP_BITS and drop / len(measured) >= VISIBLE_DROP_DB:
            return measured
    return group[-1][1]


def cut_crops(
    network: nn.Module,
    degradation: Degradation,
    samples: Sequence[Sample],
    places: Sequence[CropPlace],
    quantized: Mapping[int, Callable[[], nn.Module]],
    *,
    method: str,
) -> tuple[Crop, ...]:
    """Restore each place at 4, 6, 8 and 10 bits, as far as they were studied, and in float.

    Args:
        network: the float network, prepared.
        degradation: what it undoes.
        samples: the picture of each place.
        places: where to look.
        quantized: makes the prepared network of each width.
        method: that rounded them, for the labels.
    """
    interface = degradation.interface
    field = receptive_field(network, interface)
    panels: list[list[CropPanel]] = [[] for _ in places]
    for bits in [*(b for b in CROP_BITS if b in quantized), None]:
        model = network if bits is None else quantized[bits]()
        label = "float" if bits is None else f"{bits} bits, {method}"
        for place, sample, shown in zip(places, samples, panels, strict=True):
            restored = restore_window(
                model, sample.given, place.window, field=field, factor=interface.factor
            )
            shown.append(_panel(label, sample.shown(restored), _cut(sample.truth, place.window)))
    return tuple(
        Crop(
            image=place.image,
            top=place.window.top,
            left=place.window.left,
            height=place.window.height,
            width=place.window.width,
            truth=_bytes(_cut(sample.truth, place.window)),
            panels=tuple(shown),
        )
        for place, sample, shown in zip(places, samples, panels, strict=True)
    )


def _panel(
    label: str, restored: Float[Tensor, "1 3 h w"], truth: Float[Tensor, "1 3 h w"]
) -> CropPanel:
    shown = rounded_to_8_bits(restored)
    largest = (shown - truth).abs().amax(dim=1, keepdim=True)
    return CropPanel(
        label=label,
        psnr_db=capped_psnr_db(mean_squared_error(shown, truth)),
        rgb=_bytes(shown),
        error=_bytes(largest),
    )


def _cut(image: Float[Tensor, "1 3 h w"], window: Window) -> Float[Tensor, "1 3 h2 w2"]:
    rows = slice(window.top, window.top + window.height)
    return image[:, :, rows, window.left : window.left + window.width]


def _bytes(image: Float[Tensor, "1 c h w"]) -> bytes:
    values = image.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    return values[0].permute(1, 2, 0).contiguous().numpy().tobytes()
