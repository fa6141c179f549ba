"""Layers of a program as modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from quantisp.errors import ModelError

__all__ = ["LAYERS", "layer_of"]

CONVOLUTIONS = ("conv2d.default", "conv2d.padding", "conv_transpose2d.input", "convolution.default")
NORMS = ("batch_norm.default", "_native_batch_norm_legit_no_training.default")
LAYERS = (*CONVOLUTIONS, *NORMS, "linear.default")


def layer_of(
    name: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], rank: int
) -> nn.Module:
    """The module that does what the operation does.

    Args:
        name: of the operation, one of ``LAYERS``.
        tensors: those of weight, bias, running_mean and running_var that there are.
        settings: its other arguments; what is not there has the operation's default.
        rank: dimensions of its input.

    Raises:
        ModelError: a setting that no module has.
    """
    if name in NORMS:
        layer = _norm(tensors, settings, rank)
    elif name == "linear.default":
        outputs, inputs = tensors["weight"].shape
        layer = nn.Linear(inputs, outputs, bias="bias" in tensors)
    else:
        layer = _convolution(name, tensors, settings)
    layer.load_state_dict(dict(tensors), strict=False)
    return layer


def _norm(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], rank: int) -> nn.Module:
    if settings.get("training") or "running_mean" not in tensors:
        raise ModelError(
            "expected normalisations as they are after training, the program has one that learns: "
            "call .eval() before exporting"
        )
    kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    return kind(len(tensors["running_mean"]), eps=settings["eps"], affine="weight" in tensors)


def _convolution(
    name: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> nn.Module:
    weight = tensors["weight"]
    if weight.ndim != 4:
        raise ModelError(
            f"expected convolutions of pictures, the program has one with a weight of "
            f"{weight.ndim} dimensions: it cannot be used here"
        )
    groups = settings.get("groups", 1)
    padding = settings.get("padding", 0)
    shared: dict[str, Any] = {
        "kernel_size": tuple(weight.shape[2:]),
        "stride": _both(settings.get("stride", 1)),
        "padding": padding if isinstance(padding, str) else _both(padding),
        "dilation": _both(settings.get("dilation", 1)),
        "groups": groups,
        "bias": "bias" in tensors,
    }
    if name == "conv_transpose2d.input" or settings.get("transposed", False):
        return nn.ConvTranspose2d(
            weight.shape[0],
            weight.shape[1] * groups,
            output_padding=_both(settings.get("output_padding", 0)),
            **shared,
        )
    return nn.Conv2d(weight.shape[1] * groups, weight.shape[0], **shared)


def _both(value: int | list[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])
