"""From the truth to what a network gets: a mosaic, noise, fewer pixels, or a picture of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from quantisp.cfa import CFAPattern, mosaic
from quantisp.evaluation.protocol import describe_pattern, describe_responses
from quantisp.inference import Interface
from quantisp.metrics import rounded_to_8_bits

__all__ = [
    "Degradation",
    "as_it_is",
    "downscaled",
    "mosaicked",
    "noisy",
    "paired",
    "undegraded",
]


def as_it_is(restored: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The output itself is compared."""
    return restored


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """What is done to a picture before the network restores it.

    Args:
        name: as on the command line, such as ``noise:25``.
        sentence: what the network's input is, for people.
        interface: what the network must take and give.
        change: from RGB (n, 3, h, w) in [0, 1], in whole blocks of ``interface.factor`` px, and a
            text that chooses what is random, to the input.
        pattern: the CFA, where there is one.
        shown: from the network's output to what is compared with the truth.
    """

    name: str
    sentence: str
    interface: Interface
    change: Callable[[Tensor, str], Tensor]
    pattern: CFAPattern | None = None
    shown: Callable[[Tensor], Tensor] = as_it_is

    def protocol(self) -> Mapping[str, Any]:
        """What a result says about its inputs."""
        said = {"degradation": self.name, "input": self.sentence}
        if self.pattern is None:
            return said
        return {**said, "responses": describe_responses(self.pattern)}

    def identity(self) -> Mapping[str, Any]:
        """What a job's outcome depends on."""
        said = {"degradation": self.name, "input": self.sentence}
        return said if self.pattern is None else {**said, "cfa": describe_pattern(self.pattern)}

    def whole(self, rgb: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """The truth without the last rows and columns that are no whole block."""
        height, width = (px - px % self.interface.factor for px in rgb.shape[2:])
        return rgb[:, :, :height, :width]

    def degrade(self, rgb: Float[Tensor, "n 3 h w"], seed: str) -> Float[Tensor, "n c h2 w2"]:
        """What the network gets.

        Args:
            rgb: in [0, 1], in whole blocks.
            seed: the same text chooses the same noise.
        """
        return self.change(rgb, seed)


def mosaicked(pattern: CFAPattern) -> Degradation:
    """Sampled through a CFA."""
    return Degradation(
        name="mosaic",
        sentence="the picture's values in [0, 1], sampled through the CFA, without noise",
        interface=Interface.of_mosaic(pattern),
        change=lambda rgb, _: mosaic(rgb, pattern),
        pattern=pattern,
    )


def noisy(sigma_dn: float) -> Degradation:
    """With white Gaussian noise, neither clipped nor rounded, as denoisers are measured.

    The noise follows from the picture's content alone: every run and every setting sees the same.

    Source: the protocol of Zhang et al., "Beyond a Gaussian denoiser: residual learning of deep
    CNN for image denoising", IEEE TIP 2017.

    Args:
        sigma_dn: the standard deviation in 8-bit steps, above 0.
    """

    def change(rgb: Tensor, seed: str) -> Tensor:
        # A digest makes any text a seed; numpy's generator takes all of it.
        generator = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
        noise = generator.standard_normal(tuple(rgb.shape)).astype(np.float32)
        return rgb + torch.from_numpy(noise) * (sigma_dn / 255.0)

    return Degradation(
        name=f"noise:{sigma_dn:g}",
        sentence=f"the picture's values in [0, 1] plus Gaussian noise of {sigma_dn:g}/255, seeded "
        "by the picture's content, neither clipped nor rounded",
        interface=Interface(channels=3),
        change=change,
    )


def downscaled(factor: int) -> Degradation:
    """With fewer pixels: bicubic (a = -0.5), antialiased, clipped and rounded to 8 bits.

    As Pillow's; as MATLAB's ``imresize`` but for the outermost pixels, where that mirrors the
    picture. Rounding is what the files of low-resolution benchmark pictures went through.

    Args:
        factor: 2 or more: how many times fewer rows, and columns.
    """

    def change(rgb: Tensor, _: str) -> Tensor:
        size = [px // factor for px in rgb.shape[2:]]
        small = functional.interpolate(rgb, size=size, mode="bicubic", antialias=True)
        return rounded_to_8_bits(small)

    return Degradation(
        name=f"downscale:{factor}",
        sentence=f"the picture, cropped to whole multiples of {factor} px and downscaled {factor} "
        "times (bicubic, a = -0.5, antialiased), clipped to [0, 1] and rounded to 8 bits",
        interface=Interface(channels=3, factor=factor),
        change=change,
    )


def undegraded() -> Degradation:
    """Nothing: the network gets the picture, and should give it back, as an autoencoder does.

    Networks of pairs are calibrated so, whose inputs are pictures.
    """
    return Degradation(
        name="none",
        sentence="the picture itself, its values in [0, 1]",
        interface=Interface(channels=3),
        change=lambda picture, _: picture,
    )


def paired(factor: int) -> Degradation:
    """Nothing: inputs are pictures of their own, and so are those to calibrate with.

    Args:
        factor: how many times larger than its input a target is.
    """
    larger = "" if factor == 1 else f"; its target is {factor} times larger"
    return Degradation(
        name="pairs",
        sentence=f"a picture of its own, its values in [0, 1]{larger}",
        interface=Interface(channels=3, factor=factor),
        change=lambda picture, _: picture,
    )
