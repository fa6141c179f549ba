"""Some layers of a network rounded as a plan says, the others left in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from quantisp.quantization.checkpoints import Checkpoints
from quantisp.quantization.network import Report, RoundedNetwork
from quantisp.quantization.plan import LayerPlan
from quantisp.quantization.sensitivity import measure_alone
from quantisp.quantization.walk import walk

__all__ = ["LayerwiseRounding"]

# Enough inputs to tell sensitive layers from others.
INPUTS_ALONE = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerwiseRounding:
    """What :class:`quantisp.quantization.network.NetworkTask` offers a method of whole networks.

    Args:
        resolved: the plan of each layer.
        calibration: network inputs, for the errors of layers alone.
        instead_of: layers planned by this method take others; None is all layers.
    """

    resolved: Mapping[str, LayerPlan]
    calibration: Sequence[Tensor]
    instead_of: str | None = None

    def round_by(
        self,
        network: nn.Module,
        method: str,
        inputs: Sequence[Tensor],
        report: Report,
        layers: Sequence[str] | None = None,
        curvatures: Mapping[str, Tensor] | None = None,
        *,
        apart: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> RoundedNetwork:
        """As :class:`quantisp.quantization.network.RoundBy`."""
        tried = {
            name: entry
            if self.instead_of not in (None, entry.method)
            else replace(entry, method=method)
            for name, entry in self.resolved.items()
        }
        if layers is not None:
            left = LayerPlan(weight_bits=None)
            tried = {n: e if n in layers else left for n, e in tried.items()}
        return walk(
            network, tried, inputs, report, curvatures, apart=apart, checkpoints=checkpoints
        )

    def errors_alone(
        self, network: nn.Module, layers: Sequence[str], report: Report
    ) -> Mapping[str, float]:
        """As :data:`quantisp.quantization.network.ErrorsAlone`."""
        planned = {layer: replace(self.resolved[layer], method="gptq") for layer in layers}
        return measure_alone(network, planned, self.calibration[:INPUTS_ALONE], report)
