"""What ``quantisp demosaic`` is asked for, and what it says of each output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quantisp.api_demosaic.develop import TONES
from quantisp.cfa.balance import parse_gains
from quantisp.cfa.domains import DOMAINS
from quantisp.data.picture_files import PICTURE_FORMATS
from quantisp.errors import SettingError
from quantisp.quantization import Plan

__all__ = ["DemosaicSettings", "DemosaicedFile"]


@dataclass(frozen=True, kw_only=True)
class DemosaicSettings:
    """What becomes of each capture.

    Args:
        white_balance: ``as-shot``, ``grey-world``, or gains ``r,g,b``; None is as shot where the
            file says it, else grey world.
        tone: ``srgb`` or ``linear``.
        picture_format: ``png``, ``tiff`` (16 bits) or ``jpeg`` (8 bits).
        domain: of the mosaics that the model gets: ``srgb`` (coded), ``linear`` or ``root``; None
            is what it was trained on, but linear for one of sRGB whose CFA mixes colours.
        to_bayer: write Bayer DNG files instead of pictures.
        tile_px: side of a tile, without what it overlaps.
        plan: quantizes the network first; None is float.

    Raises:
        SettingError: a value that does not exist.
    """

    white_balance: str | None = None
    tone: str = "srgb"
    picture_format: str = "png"
    domain: str | None = None
    to_bayer: bool = False
    tile_px: int = 768
    plan: Plan | None = None

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--tone", self.tone, TONES),
            ("--format", self.picture_format, PICTURE_FORMATS),
            ("--domain", self.domain or DOMAINS[0], DOMAINS),
        ):
            if value not in allowed:
                raise SettingError(
                    f"expected {option} of {', '.join(allowed)}, found {value!r}: correct it"
                )
        if self.tile_px < 1:
            raise SettingError(f"expected tiles of 1 px or more, found {self.tile_px}: see --tile")
        if self.white_balance not in (None, "as-shot", "grey-world"):
            parse_gains(self.white_balance)

    def identity(self) -> Mapping[str, Any]:
        """What the pixels of an output depend on; tiles do not change them."""
        said = asdict(replace(self, plan=None))
        plan = None if self.plan is None else json.loads(self.plan.to_json())
        return {**{k: v for k, v in said.items() if k != "tile_px"}, "plan": plan}


@dataclass(frozen=True, kw_only=True)
class DemosaicedFile:
    """One output.

    Args:
        source, path: the raw file and what was made of it.
        kept: it was there from a run before, by the same settings.
        model: the network or method.
        pixels: of the capture.
        seconds: that restoring and writing it took; 0 if it was kept.
        white_balance: ``as shot``, ``grey world`` or ``given``.
        neutral: the camera's R, G and B of what became grey.
        psnr_to_float_db: of the written samples of a quantized network to the float network's.
    """

    source: Path
    path: Path
    kept: bool
    model: str
    pixels: int
    seconds: float
    white_balance: str
    neutral: tuple[float, float, float]
    psnr_to_float_db: float | None
