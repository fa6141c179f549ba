"""AdaRound: whether each weight goes up or down is learned, by a gate that ends at 0 or 1.

Source: Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or down? Adaptive rounding for
post-training quantization", ICML 2020: the rectified sigmoid (equation 23), its regulariser
(equation 24) with a falling beta, and the asymmetric reconstruction (equation 25) without the
activation function. The error of a layer's outputs is a quadratic form in the second moments of its
inputs, so the moments stand for the images, and all inputs count in every step.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.quantization.affine import QuantizedWeight
from quantisp.quantization.formats import IntFormat
from quantisp.quantization.matrices import as_matrix
from quantisp.quantization.methods.gptq import as_weight
from quantisp.quantization.methods.mse import minimise_squared_error
from quantisp.quantization.methods.quantease import target_weight
from quantisp.quantization.rounding import Rounding
from quantisp.quantization.statistics import LayerStatistics

__all__ = ["SoftCodes", "round_adaptively"]

STEPS = 1000
RATE = 3e-2
# How far the rectified sigmoid reaches over 0 and 1, from where it is cut.
ZETA, GAMMA = 1.1, -0.1
# The regulariser sets in after this share of the steps; its weight for a mean over the codes, when
# rounding to nearest is an error of about 1; and how beta falls.
WARM_UP = 0.2
WEIGHT = 20.0
BETA = (20.0, 2.0)


class SoftCodes:
    """Codes between the two integers next to each weight, and how far each is between them.

    Args:
        quotients: weights over scales, in codes.
        int_format: the codes that there are.
    """

    def __init__(
        self,
        quotients: Float[Tensor, "*shape"],
        int_format: IntFormat,
    ) -> None:
        self.int_format = int_format
        self.floor = quotients.floor().clamp(int_format.qmin, int_format.qmax)
        above = (quotients - self.floor).clamp(0.01, 0.99)
        self.logits = torch.logit((above - GAMMA) / (ZETA - GAMMA)).requires_grad_()

    def codes(self) -> Float[Tensor, "*shape"]:
        """Real numbers, for the descent."""
        return (self.floor + self._gates()).clamp(self.int_format.qmin, self.int_format.qmax)

    def rounded(self) -> Float[Tensor, "*shape"]:
        """Whole numbers, at the end."""
        up = (self._gates().detach() >= 0.5).to(self.floor.dtype)
        return (self.floor + up).clamp(self.int_format.qmin, self.int_format.qmax)

    def undecided(self, share: float) -> Float[Tensor, ""]:
        """The regulariser, summed over the codes.

        Args:
            share: of the steps that are done, 0 to 1.
        """
        if share < WARM_UP:
            return self.logits.new_zeros(())
        left = 1.0 - (share - WARM_UP) / (1.0 - WARM_UP)
        beta = BETA[1] + (BETA[0] - BETA[1]) * left
        return (1.0 - (2.0 * self._gates() - 1.0).abs().pow(beta)).sum()

    def _gates(self) -> Tensor:
        return (torch.sigmoid(self.logits) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def round_adaptively(
    layer: nn.Module,
    weight: Float[Tensor, "*shape"],
    int_format: IntFormat,
    rounding: Rounding,
    axis: int | None,
    statistics: LayerStatistics,
) -> tuple[QuantizedWeight, None]:
    """Quantize one weight; the arguments are those of ``CalibratedMethod``. The bias stays.

    The scale is that of least squared error of the weight; the two integers are those next to the
    weight that makes up for the layers before.
    """
    # Rows are output channels, whatever the layer's groups.
    channels = as_matrix(layer, weight).flatten(0, 1)
    row_axis = None if axis is None else 0
    scale = minimise_squared_error(channels, int_format, rounding, row_axis).scale
    target = target_weight(layer, weight, statistics).float()
    groups, rows, _ = target.shape
    scales = scale.expand(groups * rows).reshape(groups, rows)
    soft = SoftCodes(target / scales[:, :, None], int_format)
    gram = statistics.gram.float()
    # In units of the error that rounding makes anyway, so that the weight of the regulariser
    # means the same in every layer.
    unit = (scales.square().mean() / 12.0 * gram.diagonal(dim1=1, dim2=2).sum(1).mean()).clamp(
        min=torch.finfo(torch.float32).tiny
    )
    optimizer = torch.optim.Adam([soft.logits], lr=RATE)
    for step in range(STEPS):
        apart = target - soft.codes() * scales[:, :, None]
        error = ((apart @ gram) * apart).sum() / unit
        loss = error + WEIGHT * soft.undecided(step / STEPS) / target.numel()
        optimizer.zero_grad()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()
    return as_weight(layer, weight, soft.rounded().double(), scales.double(), axis), None
