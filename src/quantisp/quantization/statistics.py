"""What a layer's inputs are like: the sums that decide how much each rounding error costs.

A convolution is a matrix product: each output position sees a column x of inputs, and a weight
matrix W gives W x + bias. If x becomes y because the layers before are quantized, and W becomes Q,
the mean squared error of the outputs is a quadratic form of Q in the second moments of x and y.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import ModelError, RunError
from quantisp.quantization.matrices import input_columns
from quantisp.quantization.watching import Call, beside, watch

__all__ = [
    "FloatInputs",
    "LayerStatistics",
    "count_calls",
    "first_inputs",
    "float_statistics",
    "joint_statistics",
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
    sums = _Sums(name, quantized)
    calls = float_inputs.calls[name]
    for batch, wanted in zip(float_inputs.calibration, float_inputs.of(name), strict=True):
        given = watch(quantized, [name], batch, calls=calls)[name]
        for call, taken in zip(given, wanted, strict=True):
            sums.add(_taken(name, call), taken)
    return sums.statistics()


def joint_statistics(
    quantized: nn.Module,
    network: nn.Module,
    names: Sequence[str],
    calibration: Sequence[Tensor],
) -> dict[str, LayerStatistics]:
    """The statistics of many layers, none of which is told of the others' rounding.

    Each of the two networks runs once for each input, so that it costs far less than one by one.

    Args:
        quantized: the network whose layers before all of these are quantized.
        network: the float network.
        names: of layers that they use.
        calibration: network inputs.

    Raises:
        RunError: a layer's inputs are not finite.
    """
    sums = {name: _Sums(name, quantized) for name in names}
    for batch in calibration:
        wanted = watch(network, names, batch)
        for name, calls in watch(quantized, names, batch).items():
            for call, other in zip(calls, wanted.pop(name), strict=True):
                sums[name].add(_taken(name, call), _taken(name, other))
    return {name: total.statistics() for name, total in sums.items()}


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
        ModelError: the network does not use one of them.
        RunError: a layer's inputs are not finite.
    """
    sums: dict[str, _Sums] = {}

    def add(name: str, _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        (value,) = (*given, *named.values())
        sums.setdefault(name, _Sums(name, network)).add(value.detach())

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
    _check_used(names, sums)
    return {name: total.statistics() for name, total in sums.items()}


class _Sums:
    """What adds up to the statistics of one layer: products in float32, sums in float64.

    Args:
        name: of the layer.
        network: that it is a part of.
    """

    def __init__(self, name: str, network: nn.Module) -> None:
        self._name, self._layer = name, network.get_submodule(name)
        self._gram = self._cross = self._mean = self._float_mean = torch.zeros(())
        self._count = 0

    def add(self, taken: Tensor, wanted: Tensor | None = None) -> None:
        """What one call takes, and what it takes in the float network; None is the same."""
        y = input_columns(self._layer, taken.float())
        gram, mean = (y @ y.mT).double(), y.sum(2).double()
        cross, float_mean = gram, mean
        if wanted is not None:
            x = input_columns(self._layer, wanted.float())
            cross, float_mean = (x @ y.mT).double(), x.sum(2).double()
        self._gram, self._cross = self._gram + gram, self._cross + cross
        self._mean, self._float_mean = self._mean + mean, self._float_mean + float_mean
        self._count += y.shape[2]

    def statistics(self) -> LayerStatistics:
        """On the CPU.

        Raises:
            RunError: the inputs were not finite.
        """
        sums = (self._gram, self._cross, self._mean, self._float_mean)
        gram, cross, mean, float_mean = (value.cpu() / self._count for value in sums)
        if not bool(torch.isfinite(gram).all()) or not bool(torch.isfinite(cross).all()):
            raise RunError(
                f"expected finite inputs of layer {self._name!r}, found NaN or infinity: check the "
                "calibration inputs, or plan wider formats for the layers before it"
            )
        return LayerStatistics(
            gram=gram, cross=cross, mean=mean, float_mean=float_mean, count=self._count
        )


def count_calls(network: nn.Module, batch: Tensor, names: Sequence[str]) -> dict[str, int]:
    """How often the network uses each layer, in the order of first use.

    Raises:
        ModelError: the network does not use one of them.
    """
    calls = {name: len(found) for name, found in watch(network, names, batch).items()}
    _check_used(names, calls)
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


def _check_used(names: Sequence[str], used: Collection[str]) -> None:
    unused = [name for name in names if name not in used]
    if unused:
        raise ModelError(
            f"expected every layer to be used, {unused[0]!r} is not by the calibration input: "
            "plan it with weight_bits None, or use method 'rtn'"
        )


def _taken(name: str, call: Call) -> Tensor:
    if call.taken is None:
        raise RunError(f"expected layer {name!r} to be called with one tensor")
    return call.taken
