"""Convolutions that are trained in one form and folded into a plain convolution afterwards.

Each computes its plain kernel from its parameters and convolves with that, so that it costs as
much as the plain convolution, in training too, and folding it changes nothing but the rounding.
Without a normalisation in the branches this equals running them and adding up what they give; what
changes is how an optimizer moves the kernel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["BranchedConv", "FoldableConv", "WhiteFirstConv", "copy_folded", "plain_conv"]

Network = TypeVar("Network", bound=nn.Module)


def plain_conv(channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps channels and size."""
    return nn.Conv2d(channels, channels, 3, padding=1)


class FoldableConv(nn.Conv2d):
    """A convolution with the kernel and bias that :meth:`plain` computes from its parameters."""

    @abstractmethod
    def plain(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain convolution that gives the same."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:  # noqa: A002
        """As the plain convolution."""
        return self._conv_forward(input, *self.plain())


class BranchedConv(FoldableConv):
    """3x3(x) + 1x1(x) + gain·x; it begins as the 3x3 alone.

    Source: the branches of Ding et al., "RepVGG: Making VGG-style ConvNets great again", CVPR
    2021, with a gain by channel in place of their normalisation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        # The seed's next numbers are left to the layers that follow, as without branches.
        self.point = cast(
            "nn.Conv2d", nn.utils.skip_init(nn.Conv2d, channels, channels, 1, bias=False)
        )
        nn.init.zeros_(self.point.weight)
        self.gain = nn.Parameter(torch.zeros(channels))

    def plain(self) -> tuple[Tensor, Tensor]:
        """The branches, all in the 3x3 kernel: the last two are its middle."""
        middle = self.point.weight + torch.diag(self.gain)[:, :, None, None]
        weight = self.weight + nn.functional.pad(middle, (1, 1, 1, 1))
        return weight, _bias(self)


class WhiteFirstConv(FoldableConv):
    """Convolves to W and two colour differences, and gives R, G, B of one fold.

    ::

        R = W + p/√2 +  q/√6        W is the mean of R, G and B. The columns are orthogonal, and
        G = W        - 2q/√6        a step along W changes RGB √3 times as much as one along a
        B = W - p/√2 +  q/√6        difference.
    """

    def __init__(self, channels: int, fold_px: int) -> None:
        super().__init__(channels, 3 * fold_px**2, 3, padding=1)
        columns = [[1.0, 1.0, 1.0], [0.5**0.5, 0.0, -(0.5**0.5)]]
        columns += [[6**-0.5, -2 * 6**-0.5, 6**-0.5]]
        self.register_buffer("to_rgb", torch.tensor(columns).T.contiguous(), persistent=False)
        self.to_rgb: Tensor

    def plain(self) -> tuple[Tensor, Tensor]:
        """The kernels of R, G and B: combinations of those of W and the differences."""
        bias = _bias(self)
        weight = (self.to_rgb @ self.weight.reshape(3, -1)).view(self.weight.shape)
        return weight, (self.to_rgb @ bias.view(3, -1)).view(-1)


def copy_folded(source: nn.Module, rebuild: Callable[[], Network]) -> Network:
    """The network that ``rebuild`` makes, of plain convolutions, with the weights of ``source``."""
    state = dict(source.state_dict())
    with torch.no_grad():
        for name, layer in source.named_modules():
            if isinstance(layer, FoldableConv):
                state[f"{name}.weight"], state[f"{name}.bias"] = layer.plain()
    target = rebuild()
    target.load_state_dict({name: state[name] for name in target.state_dict()})
    first = next(source.parameters())
    target.requires_grad_(first.requires_grad)
    return target.to(first.device, first.dtype).train(source.training)


def _bias(layer: nn.Conv2d) -> Tensor:
    # Every one here is made with a bias.
    return cast("Tensor", layer.bias)
