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

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.cfa import CFAPattern, masks, sparse_planes
from quantisp.errors import ModelError
from quantisp.models.classical.interpolation import combine, interpolate, reach_px

__all__ = ["Bilinear", "primaries"]


class Bilinear(nn.Module):
    """Restores RGB from a mosaic of any CFA that tells R, G and B apart.

    Args:
        pattern: the CFA, at pixel (0, 0) of the input.

    Raises:
        ModelError: its letters do not tell three colours apart.
    """

    def __init__(self, pattern: CFAPattern) -> None:
        super().__init__()
        self.pattern = pattern
        self.reaches = tuple(reach_px(pattern, letter) for letter in pattern.letters)
        self.to_rgb: list[list[float]] = primaries(pattern).tolist()

    def forward(self, mosaic: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Restore RGB, in the domain of the mosaic, not clipped."""
        height, width = mosaic.shape[2:]
        where = masks(self.pattern, height, width, device=mosaic.device).to(mosaic.dtype)
        planes = interpolate(sparse_planes(mosaic, self.pattern), where, self.reaches)
        return combine(self.to_rgb, planes)


def primaries(pattern: CFAPattern) -> Float[Tensor, "3 letters"]:
    """R, G and B as sums of a CFA's letters.

    Raises:
        ModelError: they are none.
    """
    collected = torch.tensor([pattern.response(c) for c in pattern.letters], dtype=torch.float64)
    units = torch.eye(3, dtype=torch.float64)
    pure = [next((n for n, rgb in enumerate(collected) if rgb.equal(u)), None) for u in units]
    if None not in pure:
        chosen = torch.zeros(3, len(collected))
        for colour, number in enumerate(pure):
            chosen[colour, number] = 1.0
        return chosen
    if int(torch.linalg.matrix_rank(collected)) < 3:
        raise ModelError(
            f"expected a CFA whose filters tell red, green and blue apart, {pattern} has only "
            f"{' '.join(pattern.letters)}: choose another CFA, or give the letters' responses"
        )
    return torch.linalg.pinv(collected).to(torch.float32)
