"""Learned scales against the paper's own formulation, differentiated by torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from quantisp.quantization import IntFormat
from quantisp.quantization.lsq import LEAST_RATIO, LearnedScale, fake_quantize
from quantisp.quantization.straight_through import AbsoluteMaximum

FORMATS = [
    IntFormat(bits=bits, narrow_range=narrow) for bits in (2, 4, 8) for narrow in (False, True)
]


def as_in_the_paper(weight: Tensor, scale: Tensor, int_format: IntFormat) -> Tensor:
    """Appendix A of the paper, word for word; ``scale`` broadcasts over rows."""

    def grad_scale(x: Tensor, factor: float) -> Tensor:
        slow = x * factor
        return x.detach() - slow.detach() + slow

    def round_pass(x: Tensor) -> Tensor:
        return torch.round(x).detach() - x.detach() + x

    count = weight.numel() // scale.numel()
    step = grad_scale(scale, 1.0 / math.sqrt(count * int_format.qmax))
    return round_pass(torch.clamp(weight / step, int_format.qmin, int_format.qmax)) * step


@pytest.mark.reference
@pytest.mark.parametrize("int_format", FORMATS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_gradients_are_those_of_the_paper(int_format: IntFormat, axis: int | None) -> None:
    generator = torch.Generator().manual_seed(int_format.bits)
    weight = torch.randn(4, 6, 3, generator=generator)
    shape = {None: (), 0: (4,), 1: (6,)}[axis]
    # Small enough that some weights lie outside the range.
    scale = torch.rand(shape, generator=generator).add(0.5) / int_format.qmax
    gradient = torch.randn(weight.shape, generator=generator)
    spread = [1 if dim != axis else -1 for dim in range(3)]

    ours = weight.clone().requires_grad_(), scale.clone().requires_grad_()
    fake_quantize(*ours, int_format, "half_even", axis).backward(gradient)
    theirs = weight.clone().requires_grad_(), scale.clone().requires_grad_()
    broadcast = theirs[1] if axis is None else theirs[1].reshape(spread)
    as_in_the_paper(theirs[0], broadcast, int_format).backward(gradient)

    outside = (weight / scale.reshape(spread if axis is not None else ())).abs() > int_format.qmax
    assert 0 < int(outside.sum()) < weight.numel()
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)
    torch.testing.assert_close(ours[1].grad, theirs[1].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("quotient", "slope", "passes"),
    # By hand, at 4 bits in the full range: codes from -8 to 7.
    [(2.25, -0.25, 1.0), (2.75, 0.25, 1.0), (-1.25, 0.25, 1.0), (9.0, 7.0, 0.0), (-9.0, -8.0, 0.0)],
)
def test_one_weight_by_hand(quotient: float, slope: float, passes: float) -> None:
    weight = torch.tensor([0.5 * quotient], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    int_format = IntFormat(bits=4, narrow_range=False)
    fake_quantize(weight, scale, int_format, "half_even", None).sum().backward()
    assert scale.grad is not None
    assert weight.grad is not None
    assert float(scale.grad) == pytest.approx(slope / math.sqrt(7))
    assert float(weight.grad) == passes


@pytest.mark.unit
def test_the_scale_stays_above_zero() -> None:
    quantizer = LearnedScale(
        torch.tensor([0.5, 2.0]), int_format=IntFormat(bits=4), rounding="half_even", axis=0
    )
    with torch.no_grad():
        quantizer.ratio.copy_(torch.tensor([-3.0, 0.5]))
    assert quantizer.scale().tolist() == [0.5 * LEAST_RATIO, 1.0]


@pytest.mark.unit
def test_the_plain_form_passes_gradients_and_follows_the_weight() -> None:
    quantizer = AbsoluteMaximum(int_format=IntFormat(bits=3), rounding="half_even", axis=0)
    weight = torch.tensor([[0.9, -3.0, 1.4], [0.0, 0.2, 0.06]], requires_grad=True)
    rounded = quantizer(weight)
    rounded.backward(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert quantizer.quantized(weight).codes.tolist() == [[1, -3, 1], [0, 3, 1]]
    assert torch.equal(rounded, quantizer.quantized(weight).dequantize())
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert not list(quantizer.parameters())
