"""Layers as matrix products: a weight as a matrix, and the columns of inputs that it multiplies."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import ModelError

__all__ = ["as_matrix", "from_matrix", "input_columns"]


def as_matrix(layer: nn.Module, weight: Tensor) -> Float[Tensor, "groups rows k"]:
    """A weight as one matrix for each group: rows are output channels, columns inputs.

    Raises:
        ModelError: this kind of layer has no such matrix here.
    """
    if isinstance(layer, nn.Linear):
        return weight[None]
    if isinstance(layer, nn.Conv2d):
        return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)
    if isinstance(layer, nn.ConvTranspose2d):
        # (in, out / groups, kh, kw): a convolution of the spread input with the flipped kernel.
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]).flip(3, 4)
        return grouped.transpose(1, 2).flatten(2)
    raise ModelError(
        f"expected Conv2d, ConvTranspose2d or Linear, found {type(layer).__name__}: "
        "use method 'rtn' for it"
    )


def from_matrix(layer: nn.Module, matrix: Tensor, weight: Tensor) -> Tensor:
    """The opposite of :func:`as_matrix`, in the shape of ``weight``."""
    if isinstance(layer, nn.ConvTranspose2d):
        groups, inputs = layer.groups, weight.shape[0] // layer.groups
        grouped = matrix.reshape(groups, weight.shape[1], inputs, *weight.shape[2:])
        return grouped.transpose(1, 2).flip(3, 4).reshape(weight.shape)
    return matrix.reshape(weight.shape)


def input_columns(layer: nn.Module, x: Tensor) -> Float[Tensor, "groups k positions"]:
    """What each output position of a layer sees of its input: one column each."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).mT
    if isinstance(layer, nn.ConvTranspose2d):
        x, groups, padding, stride = _spread(layer, x), layer.groups, (0, 0), (1, 1)
    elif isinstance(layer, nn.Conv2d):
        groups, stride = layer.groups, layer.stride
        x, padding = _padded(layer, x)
    else:
        raise ModelError(f"expected a layer with a matrix, found {type(layer).__name__}")
    columns = functional.unfold(x, layer.kernel_size, layer.dilation, padding, stride)  # pyright: ignore[reportArgumentType]
    by_group = columns.reshape(len(x), groups, columns.shape[1] // groups, -1)
    return by_group.permute(1, 2, 0, 3).flatten(2)


def _padded(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, tuple(layer.padding)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # PyTorch's own record of the amounts, from the last axis backwards.
    amounts: list[int] = layer._reversed_padding_repeated_twice  # pyright: ignore[reportPrivateUsage]
    return functional.pad(x, amounts, mode=mode), (0, 0)


def _spread(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """The input with zeros between its samples, and the margin that makes it a convolution."""
    rows, columns = layer.stride
    height, width = ((x.shape[2] - 1) * rows + 1, (x.shape[3] - 1) * columns + 1)
    spread = x.new_zeros(*x.shape[:2], height, width)
    spread[:, :, ::rows, ::columns] = x
    margins: list[int] = []
    for axis in (1, 0):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) - int(layer.padding[axis])
        margins += [reach, reach + layer.output_padding[axis]]
    return functional.pad(spread, margins)
