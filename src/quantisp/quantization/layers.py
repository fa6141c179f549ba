"""The layers whose weights can be quantized, and the weights that no quantizer knows."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from torch import Tensor, nn

from quantisp.errors import QuantispError

__all__ = [
    "BUFFER_IN_FLOAT",
    "BUFFER_KIND",
    "LAYER_KINDS",
    "Layer",
    "bias_of",
    "find_layers",
    "names_like",
    "naming_layer",
    "over_channels",
    "small_modules",
    "weight_buffers",
]

# Each kind, and the axis of its weight that counts output channels.
_OUTPUT_AXIS: dict[type[nn.Module], int] = {nn.Conv2d: 0, nn.ConvTranspose2d: 1, nn.Linear: 0}
LAYER_KINDS = ", ".join(kind.__name__ for kind in _OUTPUT_AXIS)
# What makes the weight that multiplies out of the parameter, where a class overrides it.
_COMPUTING = ("forward", "_conv_forward")
# So many names are told in an error.
_FEW = 8
# What stands in a coverage for a buffer, which is no module.
BUFFER_KIND = "buffer"
BUFFER_IN_FLOAT = "a buffer, which no plan quantizes"


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A module that owns parameters of two or more dimensions.

    Biases and other parameters of one dimension stay in float, and so do buffers.

    Args:
        name: as in ``named_modules``; the network itself is ``""``.
        module: the module.
        weights: the names of those parameters.
        output_axis: of the output channels, or None where no quantizer knows the module.
    """

    name: str
    module: nn.Module
    weights: tuple[str, ...]
    output_axis: int | None

    @property
    def kind(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    @property
    def weight(self) -> nn.Parameter:
        """The weight of a quantizable layer."""
        return self.module.get_parameter("weight")

    @property
    def numel(self) -> int:
        """The number of its weights."""
        return sum(self.module.get_parameter(name).numel() for name in self.weights)

    def axis(self, granularity: str) -> int | None:
        """The axis along which the scale varies, or None for one scale."""
        return None if granularity == "tensor" else self.output_axis

    @property
    def scale_groups(self) -> int:
        """In how many blocks along axis 0 the channels of ``output_axis`` are others.

        A transposed convolution has the weight (in, out / groups, kh, kw): the outputs of each
        group belong to the inputs of that group alone.
        """
        return self.module.groups if isinstance(self.module, nn.ConvTranspose2d) else 1


def find_layers(model: nn.Module) -> dict[str, Layer]:
    """Every module that owns weights, by name; a module that is used twice appears once.

    A reparametrised layer (weight norm, ``torch.nn.utils.parametrize``) owns no plain ``weight``
    and so counts as a module that no quantizer knows. So does a subclass whose ``forward`` is its
    own, such as a convolution that standardises its weight: what multiplies there is not what a
    plan would quantize.
    """
    layers: dict[str, Layer] = {}
    # PyTorch annotates this one generator in part.
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    for name, module in modules:
        own = module.named_parameters(recurse=False)
        weights = tuple(parameter for parameter, value in own if value.ndim >= 2)
        if weights:
            layers[name] = Layer(
                name=name, module=module, weights=weights, output_axis=_output_axis(module, weights)
            )
    return layers


def small_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules all of whose own parameters have one dimension, such as normalisations."""
    layers = find_layers(model)
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    return {
        name: module
        for name, module in modules
        if name not in layers and any(True for _ in module.parameters(recurse=False))
    }


def weight_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The floating-point buffers of two or more dimensions, by name: they may be used as weights.

    A mask, all of whose values are 0 or 1, is none of them: there is nothing to quantize.
    """
    return {
        name: value
        for name, value in model.named_buffers()
        if value.ndim >= 2
        and (value.is_floating_point() or value.is_complex())
        and not bool(((value == 0) | (value == 1)).all())
    }


@contextmanager
def naming_layer(name: str) -> Generator[None]:
    """What goes wrong inside says in which layer it did."""
    try:
        yield
    except QuantispError as error:
        raise type(error)(f"in layer {name!r}: {error}") from error


def names_like(wrong: str, names: list[str]) -> str:
    """The layers that may have been meant, in words; all of them where there are few.

    >>> names_like("nose", ["head", "body"])
    'head, body'
    >>> names_like("tial", [*map(str, range(8)), "tail"])[:30]
    '9 layers, such as tail, 7, 6, '
    """
    if len(names) <= _FEW:
        return ", ".join(names) or "none, for it has no weights"
    likely = get_close_matches(wrong, names, n=_FEW, cutoff=0.0)
    return f"{len(names)} layers, such as {', '.join(likely)}"


def bias_of(module: nn.Module) -> nn.Parameter | None:
    """The module's own bias, if it has one."""
    return dict(module.named_parameters(recurse=False)).get("bias")


def over_channels(module: nn.Module, values: Tensor) -> Tensor:
    """One value for each output channel, in a shape that broadcasts over the module's weight.

    Args:
        module: Conv2d, ConvTranspose2d or Linear.
        values: 1-d, in the order of the output channels.
    """
    if isinstance(module, nn.ConvTranspose2d):
        # (in, out / groups, kh, kw): the outputs of a group belong to the inputs of that group.
        by_group = values.reshape(module.groups, -1)
        rows = by_group.repeat_interleave(module.in_channels // module.groups, dim=0)
        return rows[:, :, None, None]
    return values.reshape(-1, *[1] * (module.get_parameter("weight").ndim - 1))


def _output_axis(module: nn.Module, weights: tuple[str, ...]) -> int | None:
    if weights != ("weight",):
        return None
    known = (axis for kind, axis in _OUTPUT_AXIS.items() if _computes_as(module, kind))
    return next(known, None)


def _computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of that kind, and uses its weight as that kind does."""
    return isinstance(module, kind) and all(
        name not in vars(module) and getattr(type(module), name, None) is getattr(kind, name, None)
        for name in _COMPUTING
    )
