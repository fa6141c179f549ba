"""Mask-normalised bilinear interpolation, for any CFA.

Source: normalised convolution (Knutsson, Westin, CVPR 1993) with a tent as its kernel, which on
the Bayer tile is the bilinear interpolation of every textbook.

::

    mosaic ──▶ one sparse plane a letter ──▶ tent * plane / tent * mask ──▶ RGB, by least squares

A letter's plane is interpolated from its own samples alone. Where R, G and B all occur, their
planes are the picture, and W and others are left out; else RGB is what explains the planes best in
the sense of least squares.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from quantisp.cfa import sparse_planes
from quantisp.models.classical.interpolation import combine, interpolate
from quantisp.models.classical.letters import LetterMethod

__all__ = ["Bilinear"]


class Bilinear(LetterMethod):
    """Bilinear interpolation; its argument is the CFA, at pixel (0, 0) of the input."""

    def restore(
        self, mosaic: Float[Tensor, "n 1 h w"], where: Float[Tensor, "letters h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Each plane from its own samples, then RGB."""
        planes = interpolate(sparse_planes(mosaic, self.pattern), where, self.reaches)
        return combine(self.to_rgb, planes)
