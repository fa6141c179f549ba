"""From a picture to what a sensor gives of it, for networks of raw captures."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from quantisp.cfa import CFAPattern
from quantisp.cfa.balance import balanced
from quantisp.cfa.color import balanced_pattern, encode_srgb
from quantisp.cfa.domains import from_domain, to_domain
from quantisp.cfa.noise import camera_noise
from quantisp.cfa.simulation import NEUTRAL, SensorSettings, simulate_raw, srgb_to_linear
from quantisp.evaluation.degradation import Degradation
from quantisp.inference import Interface

__all__ = ["captured"]

BITS, BLACK = 10, 64.0
WORDS = {"linear": "linear light", "root": "its square root", "srgb": "light coded by that curve"}


def captured(pattern: CFAPattern, iso: float, domain: str = "linear") -> Degradation:
    """A sensor's noisy mosaic: what ``quantisp simulate --iso`` writes, read again.

    The network's output is made light, coded by sRGB's tone curve, and compared with the picture.
    The noise follows from the picture's content: every run and every setting sees the same.

    Args:
        pattern: the CFA; a white of larger response collects more, but is balanced.
        iso: of the camera google-pixel in :mod:`quantisp.cfa.noise`, 25 to 25600.
        domain: of what the network gets and gives: ``linear``, ``root``, or ``srgb``.

    Raises:
        SettingError: an ISO out of range.
    """
    noise = camera_noise(iso)
    seen = balanced_pattern(pattern)

    def change(rgb: Tensor, seed: str) -> Tensor:
        return torch.cat([one(picture, f"{seed} {n}") for n, picture in enumerate(rgb)])

    def one(rgb: Float[Tensor, "3 h w"], seed: str) -> Float[Tensor, "1 1 h w"]:
        digest = hashlib.sha256(seed.encode()).digest()
        sensor = SensorSettings(
            pattern=seen,
            bits=BITS,
            black=BLACK,
            noise=noise,
            seed=int.from_bytes(digest[:7], "big"),
        )
        light = srgb_to_linear(rgb.permute(1, 2, 0).contiguous().numpy())
        samples = torch.from_numpy(balanced(simulate_raw(light, sensor), NEUTRAL))[None, None]
        return to_domain(domain, samples)

    def shown(restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        return restored if domain == "srgb" else encode_srgb(from_domain(domain, restored))

    return Degradation(
        name=f"raw-srgb:{iso:g}" if domain == "srgb" else f"raw:{iso:g}",
        sentence="the picture's light (sRGB's tone curve undone), sampled through the CFA by a "
        f"sensor of {BITS} bits with the noise of ISO {iso:g} (google-pixel: S {noise.shot:g}, "
        f"O {noise.read:g}), black {BLACK:g}, seeded by the picture's content; the network gets "
        f"and gives {WORDS[domain]}; its output is compared by sRGB's curve",
        interface=Interface.of_mosaic(pattern),
        change=change,
        pattern=pattern,
        shown=shown,
    )
