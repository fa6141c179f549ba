"""The rows of a study: the float network, and what each setting costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantisp.records.settings import RowGranularity, Setting

__all__ = ["FloatResult", "StudyRow"]


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
        line_buffer_bytes: of all line buffers on frames as large as the largest picture.
        frame_bytes: to and from memory for such a frame, with line buffers on the chip. These two
            are None where activations are in float.
        decisions: what ``auto`` tried, what came of it, and what it kept; empty for other methods.
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
    line_buffer_bytes: int | None = None
    frame_bytes: int | None = None
    decisions: tuple[str, ...] = ()

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
