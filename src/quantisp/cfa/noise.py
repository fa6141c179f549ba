"""The noise of a sensor: photons by Poisson, the rest by Gauss.

A linear value x, 0 at black and 1 at saturation, has the variance S x + O. S is one over the number
of electrons at saturation; O is what reading adds. The pair is DNG's NoiseProfile.

Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image
raw-data", IEEE Transactions on Image Processing 17(10), 2008. The cameras' parameters: Abdelhamed,
Brubaker, Brown, "Noise Flow", ICCV 2019, of the cameras in the SIDD data set (Abdelhamed, Lin,
Brown, CVPR 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Float32

from quantisp.errors import SettingError

__all__ = ["CAMERAS", "NoiseModel", "add_noise", "camera_noise"]

# Camera: ISO: (S, O).
CAMERAS: Mapping[str, Mapping[int, tuple[float, float]]] = MappingProxyType(
    {
        "google-pixel": MappingProxyType(
            {
                100: (0.000228, 0.000002),
                400: (0.000886, 0.000005),
                800: (0.001764, 0.000012),
                1600: (0.003519, 0.000045),
                3200: (0.007029, 0.000179),
            }
        ),
        "nexus-6": MappingProxyType(
            {
                100: (0.000473, 0.000003),
                400: (0.001760, 0.000013),
                800: (0.003476, 0.000052),
                1600: (0.006909, 0.000208),
                3200: (0.013773, 0.000833),
            }
        ),
    }
)
LOWEST_ISO, HIGHEST_ISO = 25, 25600
# Beyond the table: S grows with the gain, O with its square.
GROWTH = (1.0, 2.0)
# A sensor of a single electron, and reading noise as large as the range.
LARGEST_S, LARGEST_O = 1.0, 1.0
ROWS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """The variance S x + O of a linear value x in [0, 1].

    Args:
        shot: S, 0 to 1.
        read: O, 0 to 1.

    Raises:
        SettingError: out of range.
    """

    shot: float
    read: float

    def __post_init__(self) -> None:
        if not (0 <= self.shot <= LARGEST_S and 0 <= self.read <= LARGEST_O):
            raise SettingError(
                f"expected noise S and O from 0 to 1, found {self.shot:g} and {self.read:g}: "
                "correct them"
            )


def camera_noise(iso: float, camera: str = "google-pixel") -> NoiseModel:
    """The published noise of a camera.

    Between the ISO values of the table S and O are interpolated, on logarithmic axes; beyond them S
    grows with ISO and O with its square.

    >>> camera_noise(800.0)
    NoiseModel(shot=0.001764, read=1.2e-05)

    Raises:
        SettingError: no such camera, or an ISO out of 25 to 25600.
    """
    if camera not in CAMERAS:
        raise SettingError(
            f"expected a camera among {', '.join(CAMERAS)}, found {camera!r}: correct it, or give "
            "the noise as S,O"
        )
    if not LOWEST_ISO <= iso <= HIGHEST_ISO:
        raise SettingError(
            f"expected an ISO from {LOWEST_ISO} to {HIGHEST_ISO}, found {iso:g}: correct it"
        )
    table = CAMERAS[camera]
    if iso in table:
        shot, read = table[int(iso)]
        return NoiseModel(shot=shot, read=read)
    shot, read = (_along(table, iso, term) for term in (0, 1))
    return NoiseModel(shot=shot, read=read)


def _along(table: Mapping[int, tuple[float, float]], iso: float, term: int) -> float:
    known = sorted(table)
    if iso < known[0] or iso > known[-1]:
        nearest = known[0] if iso < known[0] else known[-1]
        return table[nearest][term] * (iso / nearest) ** GROWTH[term]
    logs = [math.log(table[k][term]) for k in known]
    return math.exp(float(np.interp(math.log(iso), [math.log(k) for k in known], logs)))


def add_noise(
    values: Float32[np.ndarray, "h w"], noise: NoiseModel, rng: np.random.Generator
) -> Float32[np.ndarray, "h w"]:
    """Linear values as a sensor would give them.

    Args:
        values: 0 at black, 1 at saturation; negative ones collect no photons.
        noise: the model.
        rng: where chance comes from; the same state gives the same noise.

    Returns:
        Not clipped: noise below black stays negative.
    """
    noisy = values.copy()
    for top in range(0, values.shape[0], ROWS_AT_ONCE):
        rows = noisy[top : top + ROWS_AT_ONCE]
        if noise.shot > 0:
            electrons = np.maximum(rows, 0.0).astype(np.float64) / noise.shot
            rows[:] = rng.poisson(electrons) * noise.shot + np.minimum(rows, 0.0)
        if noise.read > 0:
            rows += rng.normal(0.0, math.sqrt(noise.read), rows.shape).astype(np.float32)
    return noisy
