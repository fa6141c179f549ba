"""What a layer's inputs are like: the sums that decide how much each rounding error costs.

A convolution is a matrix product: each output position sees a column x of inputs, and a weight
matrix W gives W x + bias. If x becomes y because the layers before are quantized, and W becomes Q,
the mean squared error of the outputs is a quadratic form of Q in the second moments of x and y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from quantisp.errors import ModelError, RunError
from quantisp.quantization.watching import Call, beside, watch

__all__ = [
    "FloatInputs",
    "LayerStatistics",
    "as_matrix",
    "count_calls",
    "first_inputs",
    "float_statistics",
    "from_matrix",
    "input_columns",
    "layer_statistics",
    "output_means",
]

# About 22 mosaics of 96x96 px.
ENOUGH_SAMPLES = 200_000
# Layers whose inputs are kept in memory at a time.
AHEAD = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStatistics:
    """Moments of a layer's input columns, in float64, for each group of the convolution.

    Args:
        gram: the mean of y y^T, of the quantized network.
        cross: the mean of x y^T, of the float and the quantized network.
        mean: of y.
        float_mean: of x.
        count: of columns.
        curvature: of the network's output in the layer's outputs, but for a common factor
            (:mod:`quantisp.quantization.curvature`); None where no method asked for it.
    """

    gram: Float[Tensor, "groups k k"]
    cross: Float[Tensor, "groups k k"]
    mean: Float[Tensor, "groups k"]
    float_mean: Float[Tensor, "groups k"]
    count: int
    curvature: Float[Tensor, "groups rows rows"] | None = None

    def centred(self) -> LayerStatistics:
        """Without the means, which a bias can make up for."""
        outer = self.mean[:, :, None] * self.mean[:, None, :]
        cross = self.float_mean[:, :, None] * self.mean[:, None, :]
        return replace(self, gram=self.gram - outer, cross=self.cross - cross)


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


def first_inputs(calibration: Sequence[Tensor]) -> list[Tensor]:
    """As many of the inputs as second moments need: more would only take longer."""
    kept: list[Tensor] = []
    for x in calibration:
        if sum(other.numel() for other in kept) >= ENOUGH_SAMPLES:
            break
        kept.append(x)
    return kept


class FloatInputs:
    """What layers take in the float network: those that come next are seen in the same run.

    Args:
        network: the float network.
        calibration: network inputs.
        calls: how often the network uses each layer, in the order in which they are asked for.
    """

    def __init__(
        self, network: nn.Module, calibration: Sequence[Tensor], calls: Mapping[str, int]
    ) -> None:
        self.network, self.calibration, self.calls = network, calibration, calls
        self._seen: dict[str, list[list[Tensor]]] = {}

    def of(self, name: str) -> list[list[Tensor]]:
        """For each network input, of each call of the layer; forgotten when asked for.

        Raises:
            RunError: the layer was not called with one tensor.
        """
        if name not in self._seen:
            order = list(self.calls)
            ahead = order[order.index(name) :][:AHEAD]
            self._seen = {other: [] for other in ahead}
            count = sum(self.calls[other] for other in ahead)
            for batch in self.calibration:
                for other, calls in watch(self.network, ahead, batch, calls=count).items():
                    self._seen[other].append([_taken(other, call) for call in calls])
        return self._seen.pop(name)


def layer_statistics(quantized: nn.Module, name: str, float_inputs: FloatInputs) -> LayerStatistics:
    """The statistics of layer ``name`` over the calibration inputs.

    Args:
        quantized: the network whose layers before this one are quantized.
        name: of the layer.
        float_inputs: of the same layer in the float network, and the calibration inputs.

    Raises:
        RunError: the layer's inputs are not finite.
    """
    total: list[Tensor] = []
    count = 0
    layer, calls = quantized.get_submodule(name), float_inputs.calls[name]
    for batch, wanted in zip(float_inputs.calibration, float_inputs.of(name), strict=True):
        for call, taken in zip(
            watch(quantized, [name], batch, calls=calls)[name], wanted, strict=True
        ):
            y, x = (input_columns(layer, v.float()) for v in (_taken(name, call), taken))
            # One product in float32, sums in float64.
            found = [y @ y.mT, x @ y.mT, y.sum(2), x.sum(2)]
            found = [value.double() for value in found]
            total = [t + f for t, f in zip(total, found, strict=True)] if total else found
            count += y.shape[2]
    gram, cross, mean, float_mean = (value.cpu() / count for value in total)
    if not bool(torch.isfinite(gram).all()) or not bool(torch.isfinite(cross).all()):
        raise RunError(
            f"expected finite inputs of layer {name!r}, found NaN or infinity: check the "
            "calibration inputs, or plan wider formats for the layers before it"
        )
    return LayerStatistics(gram=gram, cross=cross, mean=mean, float_mean=float_mean, count=count)


@torch.no_grad()
def float_statistics(
    network: nn.Module, names: Sequence[str], calibration: Sequence[Tensor]
) -> dict[str, LayerStatistics]:
    """The statistics of many layers of one network, each as if it alone were quantized.

    The network runs once for each input, so that it costs far less than the layers one by one.

    Args:
        network: the float network.
        names: of layers that it uses.
        calibration: network inputs.

    Raises:
        RunError: a layer's inputs are not finite.
    """
    totals: dict[str, tuple[Tensor, Tensor, int]] = {}

    def add(
        name: str, layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> None:
        (value,) = (*given, *named.values())
        x = input_columns(layer, value.detach().float())
        gram, mean = (x @ x.mT).double(), x.sum(2).double()
        if name in totals:
            before = totals[name]
            totals[name] = (before[0] + gram, before[1] + mean, before[2] + x.shape[2])
        else:
            totals[name] = (gram, mean, x.shape[2])

    hooks = [
        network.get_submodule(name).register_forward_pre_hook(partial(add, name), with_kwargs=True)
        for name in names
    ]
    try:
        for batch in calibration:
            network(beside(network, batch))
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[str, LayerStatistics] = {}
    for name, (gram_sum, sums, count) in totals.items():
        gram, mean = (value.cpu() / count for value in (gram_sum, sums))
        if not bool(torch.isfinite(gram).all()):
            raise RunError(f"expected finite inputs of layer {name!r}: check the network")
        found[name] = LayerStatistics(
            gram=gram, cross=gram, mean=mean, float_mean=mean, count=count
        )
    return found


def count_calls(network: nn.Module, batch: Tensor, names: Sequence[str]) -> dict[str, int]:
    """How often the network uses each layer, in the order of first use.

    Raises:
        ModelError: the network does not use one of them.
    """
    calls = {name: len(found) for name, found in watch(network, names, batch).items()}
    unused = [name for name in names if name not in calls]
    if unused:
        raise ModelError(
            f"expected every layer to be used, {unused[0]!r} is not by the calibration input: "
            "plan it with weight_bits None, or use method 'rtn'"
        )
    return calls


def output_means(
    network: nn.Module,
    names: Sequence[str],
    calibration: Sequence[Tensor],
    *,
    calls: int | None = None,
) -> dict[str, Float[Tensor, " channels"]]:
    """The mean of each output channel of some layers, in float64 on the CPU.

    Args:
        network: as it is to run.
        names: of the layers.
        calibration: network inputs.
        calls: as for :func:`watch`.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in calibration:
        for name, watched in watch(network, names, batch, calls=calls).items():
            axis = -1 if isinstance(network.get_submodule(name), nn.Linear) else 1
            for call in watched:
                if call.given is None:
                    raise RunError(f"expected one tensor from layer {name!r}")
                rows = call.given.movedim(axis, 0).flatten(1)
                found[name].append(
                    torch.stack(
                        [
                            rows.double().sum(1),
                            torch.full_like(rows[:, 0], rows.shape[1], dtype=torch.float64),
                        ]
                    ).cpu()
                )
    sums = {name: torch.stack(parts).sum(0) for name, parts in found.items()}
    return {name: total / count for name, (total, count) in sums.items()}


def _taken(name: str, call: Call) -> Tensor:
    if call.taken is None:
        raise RunError(f"expected layer {name!r} to be called with one tensor")
    return call.taken


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
