"""The cost sheet of a model, composed from the rooms."""

from __future__ import annotations

from pathlib import Path

import torch

from quantisp.api import find_model
from quantisp.errors import ModelError, SettingError
from quantisp.inference import PROBE_PX, find_interface
from quantisp.models import LoadedModel
from quantisp.quantization import Plan, QuantizedModel, capture
from quantisp.quantization.cost_sheet import integer_sheet, network_sheet
from quantisp.quantization.integer import IntegerExecutor
from quantisp.records.costs import CostSheet

__all__ = ["cost_sheet"]


def cost_sheet(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    plan: Plan | None = None,
    height: int = 3000,
    width: int = 4000,
) -> CostSheet:
    """What a model costs in hardware on frames of one size: see ``docs/costs.md``.

    Args:
        model, weights: as for :func:`quantisp.load_model`.
        plan: widths that a float network is to have; None is float32, or the model's own.
        height, width: of a frame in px.

    Raises:
        InputError: an unusable model, plan or size; or a network that needs the whole picture.
    """
    found = find_model(model, weights)
    network = found.model
    if plan is not None and isinstance(network, QuantizedModel | IntegerExecutor):
        raise SettingError(
            f"expected a float network beside a plan, {found.name} is quantized already: leave "
            "out the plan"
        )
    if isinstance(network, IntegerExecutor):
        return integer_sheet(network.integers, (height, width))
    if isinstance(network, QuantizedModel):
        plan, network = network.plan, network.network
    if not any(True for _ in network.parameters()):
        raise ModelError(
            f"expected a network with weights, {found.name} has none: give a network or the folder "
            "of an integer network"
        )
    graph = capture(network, _example(found))
    return network_sheet(graph, network, plan or Plan.uniform(weight_bits=None), (height, width))


def _example(found: LoadedModel) -> torch.Tensor:
    fixed = (None,) * 4 if found.input_size is None else found.input_size.fixed_sizes
    size = (fixed[2] or PROBE_PX, fixed[3] or PROBE_PX)
    interface = find_interface(found.model, found.pattern, channels=fixed[1] or 3, size=size)
    return torch.zeros(fixed[0] or 1, interface.channels, *size)
