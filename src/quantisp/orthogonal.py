"""The orthogonal matrices nearest to given ones, many at once, by products alone.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["inverse_root", "orthogonal", "unit"]

# Muon's own iteration: five rounds of an odd polynomial, which brings singular values near 1.
COEFFICIENTS, ROUNDS = (3.4445, -4.7750, 2.0315), 5
LEAST = torch.finfo(torch.float32).tiny


def orthogonal(matrices: Float[Tensor, "*stack rows k"]) -> Float[Tensor, "*stack rows k"]:
    """Nearly the nearest orthogonal ones: singular values between about 0.7 and 1.2."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    # Beforehand, too, so that squares are neither lost nor infinite.
    x = unit(matrices.mT if is_tall else matrices)
    x = inverse_root(x.float() @ x.float().mT).to(x.dtype) @ x
    return x.mT if is_tall else x


def inverse_root(squares: Float[Tensor, "*stack n n"]) -> Float[Tensor, "*stack n n"]:
    """What makes X nearly orthogonal if X is multiplied by it from the left.

    The polynomials of Muon's iteration are those of X X^T, which is small where X is wide, and
    their product is found there; so X itself is multiplied twice, however many rounds there are.

    Args:
        squares: X X^T, in float32. X may be of any size; zero stays zero.
    """
    first, third, fifth = COEFFICIENTS
    # The square of X's norm.
    size = squares.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=LEAST)
    square = squares / size
    whole = size.rsqrt() * torch.eye(square.shape[-1], device=square.device)
    for round_number in range(1, ROUNDS + 1):
        factor = (fifth * square @ square).add_(square, alpha=third)
        factor.diagonal(dim1=-2, dim2=-1).add_(first)
        whole = factor @ whole
        if round_number < ROUNDS:
            square = factor @ square @ factor
    return whole


def unit(matrices: Float[Tensor, "*stack rows k"]) -> Float[Tensor, "*stack rows k"]:
    """Of norm 1; zeros stay."""
    norm = torch.linalg.matrix_norm(matrices.float(), keepdim=True).clamp(min=LEAST)
    return matrices / norm.to(matrices.dtype)
