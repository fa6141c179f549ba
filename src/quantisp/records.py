"""What quantisp finds out, as plain data: no torch, no numpy, ready for JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = [
    "SCHEMA",
    "Crop",
    "CropPanel",
    "EvaluationResult",
    "FloatResult",
    "Granularity",
    "ImageQuality",
    "LayerResult",
    "Recommendation",
    "RowGranularity",
    "Setting",
    "StudyResult",
    "StudyRow",
]

SCHEMA = 1
Granularity = Literal["tensor", "channel"]
RowGranularity = Literal["tensor", "channel", "block", "none"]


@dataclass(frozen=True, kw_only=True, order=True)
class Setting:
    """One way to quantize a whole network.

    Args:
        method: of rounding, such as ``rtn``; of most weights, where a plan names several.
        granularity: of the scales: ``tensor`` or ``channel``, of most weights where a plan names
            both; ``block`` and ``none`` for weight formats.
        weight_bits: 2 to 16; None where a plan or a weight format says it.
        activation_bits: None is float.
        plan: the name of a plan, or the budget that one is chosen for, such as ``mean-bits=4``.
        weight_format: such as ``fp8-e4m3``.
    """

    method: str
    granularity: RowGranularity
    weight_bits: int | None
    activation_bits: int | None = None
    plan: str | None = None
    weight_format: str | None = None

    @property
    def is_uniform(self) -> bool:
        """Whether every layer has the same integers."""
        return self.plan is None and self.weight_format is None

    @property
    def label(self) -> str:
        """What is special about it, in short: ``5 bits``, ``mean-bits=4`` or ``float16``."""
        return self.plan or self.weight_format or f"{self.weight_bits} bits"

    @property
    def width(self) -> int:
        """The weight bits of a uniform setting.

        Raises:
            ValueError: it is not uniform.
        """
        if self.weight_bits is None:
            raise ValueError(f"expected a uniform setting, found {self.label}")
        return self.weight_bits

    @property
    def series(self) -> tuple[str, RowGranularity, int | None]:
        """What stays the same along a curve over ``weight_bits``."""
        return self.method, self.granularity, self.activation_bits


@dataclass(frozen=True, kw_only=True)
class ImageQuality:
    """How close one restored picture is to the truth. PSNR is 100 dB for equal pictures.

    Args:
        psnr_db: of the whole picture.
        psnr_cropped_db: without a border.
        ssim: structural similarity.
    """

    psnr_db: float
    psnr_cropped_db: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """A model's quality over a set of pictures: each one, and the means.

    Args:
        cfa: what the pictures were sampled through; None where it was no mosaic.
        degradation: what was done to them, such as ``mosaic`` or ``noise:25``.
        border_px: what ``psnr_cropped_db`` leaves out at each side.
    """

    model: str
    model_sha256: str
    cfa: str | None
    degradation: str
    border_px: int
    psnr_db: float
    psnr_cropped_db: float
    ssim: float
    images: Mapping[str, ImageQuality]

    def to_json(self) -> str:
        """One JSON document, ending in a newline."""
        return _document(asdict(self))


@dataclass(frozen=True, kw_only=True)
class FloatResult:
    """The float network's quality: means, and each picture's PSNR in dB.

    ``weight_bytes`` and ``bops_per_px`` are its cost, as in :class:`StudyRow`.
    """

    psnr_db: float
    psnr_crop10_db: float
    ssim: float
    images: Mapping[str, float]
    weight_bytes: int | None = None
    bops_per_px: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What one setting costs.

    Args:
        weight_bits, activation_bits, method, granularity: the setting.
        psnr_db: mean over the pictures, against the truth.
        drop_db: mean float PSNR minus ``psnr_db``; it may be negative.
        psnr_to_float_db: mean PSNR against the float network's own output, before rounding to 8
            bits; None if every picture is equal to it.
        worst_image_drop_db: the largest drop of a picture.
        worst_tile_drop_db: the largest drop of a 128x128 tile.
        psnr_crop10_db: as ``psnr_db``, without a border of 10 px.
        ssim: mean structural similarity.
        images: each picture's PSNR in dB.
        plan, weight_format: the rest of the setting; None in a uniform row.
        mean_weight_bits: over all weights, without scales for tensors and channels; weights in
            float are 32 bits.
        weight_bytes: packed codes and their scales, without biases.
        bops_per_px: weight bits times activation bits, for every multiply-accumulate of an output
            pixel; float is 32 bits.
        mac_energy_pj, mac_area_um2: an estimate of one multiply-accumulate in 45 nm
            (:mod:`quantisp.hardware`): the mean energy, and the area of a unit that is wide enough
            for every layer. These five are None where nobody counted multiplications.
        layer_bits: the width of each layer where a plan says it (None is float); else None.
        simulated_psnr_db: where the network ran in integers, ``psnr_db`` of its simulation in
            float32.
        differing_outputs: the share of output values that differ between the two.
    """

    weight_bits: int | None
    activation_bits: int | None
    method: str
    granularity: RowGranularity
    psnr_db: float
    drop_db: float
    psnr_to_float_db: float | None
    worst_image_drop_db: float
    worst_tile_drop_db: float
    psnr_crop10_db: float
    ssim: float
    images: Mapping[str, float]
    plan: str | None = None
    weight_format: str | None = None
    mean_weight_bits: float | None = None
    weight_bytes: int | None = None
    bops_per_px: float | None = None
    mac_energy_pj: float | None = None
    mac_area_um2: float | None = None
    layer_bits: Mapping[str, int | None] | None = None
    simulated_psnr_db: float | None = None
    differing_outputs: float | None = None

    @property
    def setting(self) -> Setting:
        """The setting alone."""
        return Setting(
            method=self.method,
            granularity=self.granularity,
            weight_bits=self.weight_bits,
            activation_bits=self.activation_bits,
            plan=self.plan,
            weight_format=self.weight_format,
        )

    @property
    def width(self) -> int:
        """The weight bits of a uniform row; no other row has one."""
        return self.setting.width


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The fewest weight bits whose drop is at most ``within_db`` there and at every larger width.

    ``weight_bits`` is None where no width that was studied is enough.
    """

    within_db: float
    method: str
    granularity: RowGranularity
    activation_bits: int | None
    weight_bits: int | None


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """What became of one module with parameters.

    Args:
        name: as in ``named_modules``; the network itself is ``""``.
        kind: its class, such as ``Conv2d``.
        weights: how many parameters of it could be quantized; for other modules, how many it has.
        weight_bits: the widths that it was studied at; empty where it stays in float.
        reason: why it stays in float; empty where it is quantized.
        folded_into: the layer that a batch normalisation was made part of, or None.
    """

    name: str
    kind: str
    weights: int
    weight_bits: tuple[int, ...] = ()
    reason: str = ""
    folded_into: str | None = None

    @property
    def in_float(self) -> bool:
        """Whether the network still uses its parameters as they were trained."""
        return not self.weight_bits and self.folded_into is None


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """The table: one row per setting, against float.

    Args:
        cfa: what the pictures were sampled through; None where the network restores no mosaics.
        protocol: how it was measured, such as ``degradation``: what the network undoes.
        coverage: what became of each module with parameters, in the network's order.
    """

    model: str
    model_sha256: str
    cfa: str | None
    protocol: Mapping[str, Any]
    float: FloatResult
    rows: tuple[StudyRow, ...]
    recommendation: tuple[Recommendation, ...]
    coverage: tuple[LayerResult, ...] = ()
    schema: int = field(default=SCHEMA)

    @property
    def uniform_rows(self) -> tuple[StudyRow, ...]:
        """Those with the same integers in every layer."""
        return tuple(row for row in self.rows if row.setting.is_uniform)

    @property
    def is_kodak(self) -> bool:
        """Whether mosaics of the 24 Kodak pictures, recognised by content, were restored."""
        return self.protocol.get("image_set") == "kodak" and self.cfa is not None

    @property
    def task(self) -> str:
        """What the network undoes: its CFA, or the degradation such as ``noise:25``."""
        return self.cfa or str(self.protocol.get("degradation"))

    def to_json(self) -> str:
        """``study.json``: one document, ending in a newline; equal results give equal bytes."""
        return _document(
            {
                "schema": self.schema,
                "model": self.model,
                "model_sha256": self.model_sha256,
                "cfa": self.cfa,
                "protocol": dict(self.protocol),
                "float": asdict(self.float),
                "rows": [asdict(row) for row in self.rows],
                "recommendation": {
                    "within_db": self.recommendation[0].within_db,
                    "choices": [
                        {
                            name: value
                            for name, value in asdict(choice).items()
                            if name != "within_db"
                        }
                        for choice in self.recommendation
                    ],
                },
                "coverage": [asdict(layer) for layer in self.coverage],
            }
        )

    def to_csv(self) -> str:
        """``study.csv``: without pictures and layers; an empty field is float or no value."""
        left_out = ("images", "layer_bits")
        columns = [name for name in StudyRow.__dataclass_fields__ if name not in left_out]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in self.rows:
            writer.writerow([_cell(getattr(row, name)) for name in columns])
        return text.getvalue()


@dataclass(frozen=True, kw_only=True)
class CropPanel:
    """One setting's view of a crop.

    Args:
        label: such as ``4 bits, rtn`` or ``float``.
        psnr_db: of the crop alone.
        rgb: height x width x 3 bytes, row by row.
        error: height x width bytes: the largest absolute error over R, G, B, in 8-bit steps.
    """

    label: str
    psnr_db: float
    rgb: bytes
    error: bytes


@dataclass(frozen=True, kw_only=True)
class Crop:
    """The same place of a picture, as it is and at several settings."""

    image: str
    top: int
    left: int
    height: int
    width: int
    truth: bytes
    panels: tuple[CropPanel, ...]


def _document(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
