"""The operator for bytes: ``torch.ops.onednn.qconv2d_pointwise``, and whether it is exact here.

It multiplies uint8 by int8 and sums in int32. It is a private operator of PyTorch, and some
processors saturate sums of two products to 16 bits: a self-test decides whether it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int, Integer, UInt8
from torch import Tensor

from quantisp.quantization.graph.execution import apply_weight
from quantisp.quantization.graph.nodes import Conv, Linear

__all__ = ["as_bytes", "channels_last", "convolution", "int8_is_exact"]


def convolution(
    operation: Any,
    codes: Int[Tensor, "*shape"],
    *,
    zero: int,
    scale: Float[Tensor, " channels"] | None = None,
    bias: Float[Tensor, " channels"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Callable[[Tensor], Tensor]:
    """From unsigned bytes to sums of products, by the operator for bytes.

    Args:
        operation: a ``Conv`` or ``Linear``.
        codes: weights that int8 holds.
        zero: which byte stands for 0.
        scale: what sums are multiplied by, for each output channel; None is 1.
        bias: what is added then, in float32; None is nothing.
        dtype: of the result; uint8 and int8 are rounded to the nearest, half to even, and saturate.
    """
    linear = isinstance(operation, Linear)
    weight = (codes[:, :, None, None] if linear else codes).to(torch.int8)
    channels = weight.shape[0]
    scale, zeros = torch.ones(channels) if scale is None else scale, torch.zeros(channels).long()
    stride, padding, dilation, groups = (
        ([1, 1], [0, 0], [1, 1], 1)
        if linear
        else (
            list(operation.stride),
            list(operation.padding),
            list(operation.dilation),
            operation.groups,
        )
    )
    onednn: Any = torch.ops.onednn
    packed = onednn.qconv_prepack(
        weight.contiguous(), scale, 1.0, zero, stride, padding, dilation, groups, None
    )
    shape = (stride, padding, dilation, groups)
    rest = (1.0, 0, dtype, "none", [], "")
    return lambda x: onednn.qconv2d_pointwise(
        x, 1.0, zero, packed, scale, zeros, bias, *shape, *rest
    )


@cache
def int8_is_exact() -> bool:
    """Whether the operator for bytes is there, and exact on this processor, extremes included."""
    generator = torch.Generator().manual_seed(0)
    operation = Conv(layer="", stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    shape, size = (32, 64, 3, 3), (1, 64, 7, 9)
    ends = torch.tensor([-128, 127])
    for sign in (torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.int64), None):
        chosen = torch.randint(0, 2, shape, generator=generator) if sign is None else sign
        weight = ends[chosen]
        for x in (
            torch.full(size, 255, dtype=torch.uint8),
            torch.randint(0, 2, size, generator=generator).to(torch.uint8) * 255,
            torch.randint(0, 256, size, generator=generator).to(torch.uint8),
        ):
            for zero in (0, 128):
                wanted = apply_weight(operation, x.double() - zero, weight.double(), None)
                try:
                    found = convolution(operation, weight, zero=zero)(channels_last(x))
                except (AttributeError, RuntimeError, NotImplementedError):
                    return False
                # What float32 holds is not exact beyond 2^24, but no farther off than its steps.
                if not torch.equal(found, wanted.float()):
                    return False
    return True


def as_bytes(x: Integer[Tensor, "n c h w"], *, signed: bool) -> UInt8[Tensor, "n c h w"]:
    """Codes of eight bits as unsigned bytes, of which 128 stands for 0 if they are signed."""
    if not signed:
        return channels_last(x.to(torch.uint8))
    # The highest bit turned round adds 128.
    return channels_last(x.to(torch.int8)).view(torch.uint8) ^ 128


def channels_last(x: Tensor) -> Tensor:
    """The same numbers in the layout that convolutions want."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
