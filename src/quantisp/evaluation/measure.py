"""What is measured of one restored picture, and how the figures of a study follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.errors import RunError
from quantisp.metrics import (
    mean_squared_error,
    psnr_db,
    rounded_to_8_bits,
    ssim,
    tile_squared_errors,
)

__all__ = [
    "BORDER_PX",
    "LEAST_PX",
    "LEAST_TILE_MSE",
    "PSNR_CAP_DB",
    "Measurement",
    "capped_psnr_db",
    "measure",
]

BORDER_PX = 10
# The smallest picture whose figures mean something: a border of 10 px is left out of one of them,
# and SSIM looks through windows of 11 px.
LEAST_PX = 32
# Equal pictures count as this, so that one of them does not make a mean infinite.
PSNR_CAP_DB = 100.0
# The variance of rounding to 8 bits: a tile's error below it cannot be told from none.
LEAST_TILE_MSE = 1.0 / (12.0 * 255.0**2)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One picture, restored by one network.

    Args:
        mse: against the truth, over all pixels and channels, after clipping and rounding to 8 bits.
        mse_crop10: the same without a border of 10 px.
        ssim: against the truth, after the same clipping and rounding.
        mse_to_float: against the float network's output, clipped but not rounded; 0 for float.
        tile_mse: as ``mse``, of each 128x128 tile, row by row.
        simulated_mse: as ``mse``, of the simulation in float32 of a network that ran in integers.
        differing: the share of output values that differ between the two.
    """

    mse: float
    mse_crop10: float
    ssim: float
    mse_to_float: float
    tile_mse: tuple[tuple[float, ...], ...]
    simulated_mse: float | None = None
    differing: float | None = None

    @property
    def psnr_db(self) -> float:
        """Against the truth, at most 100 dB."""
        return capped_psnr_db(self.mse)

    @property
    def psnr_crop10_db(self) -> float:
        """The same without a border of 10 px."""
        return capped_psnr_db(self.mse_crop10)

    def worst_tile_drop_db(self, reference: Measurement) -> float:
        """The largest drop of a tile against the same tile of ``reference``."""
        return max(
            psnr_db(max(before, LEAST_TILE_MSE)) - psnr_db(max(after, LEAST_TILE_MSE))
            for before_row, after_row in zip(reference.tile_mse, self.tile_mse, strict=True)
            for before, after in zip(before_row, after_row, strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """For the job store."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Measurement:
        """From the job store.

        Raises:
            KeyError, TypeError: something is missing or of another kind.
        """
        return cls(
            mse=float(stored["mse"]),
            mse_crop10=float(stored["mse_crop10"]),
            ssim=float(stored["ssim"]),
            mse_to_float=float(stored["mse_to_float"]),
            tile_mse=tuple(tuple(float(v) for v in row) for row in stored["tile_mse"]),
            simulated_mse=_optional(stored.get("simulated_mse")),
            differing=_optional(stored.get("differing")),
        )

    def with_simulation(
        self,
        restored: Float[Tensor, "1 3 h w"],
        simulated: Float[Tensor, "1 3 h w"],
        truth: Float[Tensor, "1 3 h w"],
    ) -> Measurement:
        """The same, and how far the simulation in float is from the integers."""
        return replace(
            self,
            simulated_mse=mean_squared_error(rounded_to_8_bits(simulated), truth),
            differing=float((simulated != restored).double().mean()),
        )


def measure(
    restored: Float[Tensor, "1 3 h w"],
    truth: Float[Tensor, "1 3 h w"],
    float_output: Float[Tensor, "1 3 h w"] | None = None,
) -> Measurement:
    """Measure one restored picture.

    Args:
        restored: by the network, not clipped.
        truth: in [0, 1].
        float_output: of the float network, clipped to [0, 1]; None if ``restored`` is that.

    Raises:
        RunError: ``restored`` holds NaN.
    """
    if bool(torch.isnan(restored).any()):
        raise RunError(
            "expected numbers from the network, found NaN: check its weights, or leave out the "
            "setting that gives them"
        )
    shown = rounded_to_8_bits(restored)
    to_float = 0.0
    if float_output is not None:
        to_float = mean_squared_error(restored.clamp(0.0, 1.0), float_output)
    return Measurement(
        mse=mean_squared_error(shown, truth),
        mse_crop10=mean_squared_error(shown, truth, border_px=BORDER_PX),
        ssim=ssim(shown, truth),
        mse_to_float=to_float,
        tile_mse=tuple(tuple(row) for row in tile_squared_errors(shown, truth).tolist()),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def capped_psnr_db(mse: float) -> float:
    """10 log10(1 / mse), at most 100 dB."""
    return min(psnr_db(mse), PSNR_CAP_DB)
