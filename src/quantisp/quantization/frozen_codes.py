"""Incremental fine-tuning: a weight is trained in float until it is its turn, and then stays.

Source: Zhou et al., "Incremental network quantization", ICLR 2017. The scales are learned on.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import RunError
from quantisp.quantization.affine import QuantizedWeight, spread_scale
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.rounding import Rounding
from quantisp.quantization.weight_quantizer import LEAST_RATIO, WeightQuantizer

__all__ = ["FrozenCodes"]


class FrozenCodes(WeightQuantizer):
    """Passes a weight on as it is, until codes are put in its place.

    Args:
        scale: of the codes to come: its shape counts.
        weight: its shape counts, too.
        groups: of the layer, whose channels have scales of their own.
        int_format, rounding, axis: as of :class:`WeightQuantizer`.

    Attributes:
        codes: real numbers that are integers; zeros before there are some.
        frozen: whether there are.
        ratio: of the scale now to that which came with the codes; learned.
    """

    scale_parameters = ("ratio",)

    def __init__(
        self,
        scale: Float[Tensor, "*channels"],
        weight: Float[Tensor, "*shape"],
        *,
        groups: int,
        int_format: IntFormat,
        rounding: Rounding,
        axis: int | None,
    ) -> None:
        super().__init__(int_format=int_format, rounding=rounding, axis=axis)
        self.groups = groups
        self.start: Tensor
        self.codes: Tensor
        self.frozen: Tensor
        self.register_buffer("start", torch.ones_like(scale))
        self.register_buffer("codes", torch.zeros_like(weight))
        self.register_buffer("frozen", torch.tensor(data=False))
        self.ratio = nn.Parameter(torch.ones_like(scale))

    @torch.no_grad()
    def freeze(self, weight: QuantizedWeight) -> None:
        """From now on the weight is this one, but for its scale."""
        self.codes.copy_(weight.codes)
        self.start.copy_(weight.scale)
        self.ratio.fill_(1.0)
        self.frozen.fill_(value=True)

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The weight, or codes times scale; gradients go to what was used."""
        if not self.frozen:
            return weight
        return self.codes * spread_scale(self._scale(), self.codes, self.axis, self.groups)

    @torch.no_grad()
    def quantized(self, weight: Float[Tensor, "*shape"]) -> QuantizedWeight:  # noqa: ARG002
        """The codes and the scale behind ``forward``.

        Raises:
            RunError: the weight is still in float.
        """
        if not self.frozen:
            raise RunError(
                "expected weights that are all rounded, found some still in float: wait for the "
                "end of the run"
            )
        return QuantizedWeight(
            codes=self.codes.to("cpu", torch.int32),
            scale=self._scale().cpu(),
            axis=self.axis,
            groups=self.groups,
        )

    def _scale(self) -> Tensor:
        return self.start * self.ratio.clamp(min=LEAST_RATIO)
