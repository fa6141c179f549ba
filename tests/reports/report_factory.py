"""Makes studies and crops with fixed numbers, without a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quantisp.records import (
    Crop,
    CropPanel,
    FloatResult,
    Recommendation,
    StudyResult,
    StudyRow,
)

FLOAT_DB = 41.25


def make_row(bits: int, method: str, granularity: str, drop_db: float, names: Sequence[str]):
    return StudyRow(
        weight_bits=bits,
        activation_bits=None,
        method=method,
        granularity=granularity,
        psnr_db=FLOAT_DB - drop_db,
        drop_db=drop_db,
        psnr_to_float_db=30.0 + 6.02 * (bits - 4),
        worst_image_drop_db=1.5 * drop_db,
        worst_tile_drop_db=2.5 * drop_db,
        psnr_crop10_db=FLOAT_DB + 0.1 - drop_db,
        ssim=0.99 - 0.001 * drop_db,
        images={name: FLOAT_DB + 0.1 * i - drop_db for i, name in enumerate(names)},
    )


def make_study(
    *,
    names: Sequence[str],
    rows: Sequence[StudyRow],
    bits: Sequence[int | None],
    image_set: str = "own",
    model: str = "dephasenet-lite",
) -> StudyResult:
    settings = dict.fromkeys((row.method, row.granularity, row.activation_bits) for row in rows)
    return StudyResult(
        model=model,
        model_sha256="0f" * 32,
        cfa="rgbw-kodak",
        protocol={
            "image_set": image_set,
            "images": len(names),
            "psnr": "one MSE over all pixels and channels, clipped, rounded to 8 bits",
            "border_px": 0,
            "narrow_range": True,
            "calibration": None,
        },
        float=FloatResult(
            psnr_db=FLOAT_DB,
            psnr_crop10_db=FLOAT_DB + 0.1,
            ssim=0.99,
            images={name: FLOAT_DB + 0.1 * i for i, name in enumerate(names)},
        ),
        rows=tuple(rows),
        recommendation=tuple(
            Recommendation(
                within_db=0.05,
                method=method,
                granularity=granularity,
                activation_bits=activation_bits,
                weight_bits=chosen,
            )
            for (method, granularity, activation_bits), chosen in zip(settings, bits, strict=True)
        ),
    )


def make_crop(
    name: str = "kodim19.png", labels: Sequence[str] = ("4 bits", "float"), size_px: int = 96
) -> Crop:
    """Noise that shrinks from panel to panel, on a picture of noise."""
    random = np.random.default_rng(7)
    truth = random.integers(0, 256, (size_px, size_px, 3))
    panels: list[CropPanel] = []
    for index, label in enumerate(labels):
        noise = np.round(random.normal(0, 12 / 2**index, truth.shape)).astype(int)
        rgb = np.clip(truth + noise, 0, 255)
        difference = np.abs(rgb - truth)
        panels.append(
            CropPanel(
                label=label,
                psnr_db=10 * math.log10(255**2 / float((difference**2).mean())),
                rgb=rgb.astype(np.uint8).tobytes(),
                error=difference.max(axis=-1).astype(np.uint8).tobytes(),
            )
        )
    return Crop(
        image=name,
        top=12,
        left=34,
        height=size_px,
        width=size_px,
        truth=truth.astype(np.uint8).tobytes(),
        panels=tuple(panels),
    )
