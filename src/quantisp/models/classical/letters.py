"""What methods have in common that make a plane of each letter, and RGB of the planes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.cfa import CFAPattern, masks
from quantisp.errors import ModelError
from quantisp.models.classical.interpolation import reach_px

__all__ = ["LetterMethod", "primaries"]


class LetterMethod(nn.Module):
    """Restores RGB from a mosaic of any CFA that tells R, G and B apart.

    Args:
        pattern: the CFA, at pixel (0, 0) of the input.

    Attributes:
        reaches: of the tents that find a sample of each letter from every pixel.
        to_rgb: R, G and B as sums of the letters.

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
        return self.restore(mosaic, where)

    @abstractmethod
    def restore(
        self, mosaic: Float[Tensor, "n 1 h w"], where: Float[Tensor, "letters h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """As ``forward``; ``where`` is 1 where a letter was sampled, else 0."""


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
