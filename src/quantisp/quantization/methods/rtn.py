"""Round to nearest: the absolute maximum sets the scale, and each weight gets its nearest code.

Sources: Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018, section 2.1 (the affine scheme, here with
zero_point 0); Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference:
a whitepaper", arXiv 1806.08342, sections 2.2 and 3.1.1 (symmetric, per tensor and per channel).
Per tensor and in the narrow range it is our reading of the protocol of Seo et al., "On quantization
of convolutional neural networks for image restoration", Electronic Imaging 2022, figure 5.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from quantisp.quantization.affine import QuantizedWeight, quantize_tensor, weight_scale
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding

__all__ = ["round_to_nearest"]


def round_to_nearest(
    weight: Float[Tensor, "*shape"], int_format: IntFormat, rounding: Rounding, axis: int | None
) -> QuantizedWeight:
    """Quantize one weight; the arguments are those of ``LayerMethod``.

    >>> import torch
    >>> weight = torch.tensor([[0.6, -1.0], [0.25, 0.1]])
    >>> round_to_nearest(weight, IntFormat(bits=4), "half_even", 0).codes.tolist()
    [[4, -7], [7, 3]]
    """
    scale = weight_scale(weight, int_format, axis)
    codes = quantize_tensor(weight, scale, int_format, rounding, axis)
    return QuantizedWeight(codes=codes, scale=scale, axis=axis)
