"""Incremental fine-tuning: layers are rounded in turn, and what is in float makes up for them.

As the method of the same name (:mod:`quantisp.quantization.methods.incremental`, with its sources),
in the course of a training run: as many steps as there is time for, on patches that are always new,
and with activations in integers, too. It is knowledge distillation: the float network is the
teacher, and no ground truth is looked at. The method has a descent of its own, for it has to do
with a thousand steps, on a few inputs and without files; here the trainer's is used, which can be
killed and goes on. Rates and stages were chosen for the time that each has.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quantisp.errors import SettingError
from quantisp.quantization.layers import find_layers
from quantisp.quantization.layerwise import LayerwiseRounding
from quantisp.quantization.network import squared_errors
from quantisp.quantization.plan import Plan
from quantisp.quantization.stages import ends_of, is_small, stages_of
from quantisp.quantization.trainable import TrainableModel

__all__ = ["IncrementalGuide"]

log = logging.getLogger(__name__)

# Parts of a run, fine enough for every length.
PARTS = 10**9
# Of the layers not rounded by themselves: with much time, theirs is the error that is left.
GROUPS = 6


class IncrementalGuide:
    """Says which layers are rounded when, and rounds them.

    Args:
        floats: the float network, in evaluation mode, on the device of the run.
        plan: of its layers; K-best and QuantEase take the place of its methods.
        inputs: network inputs that layers are rounded by.
    """

    def __init__(
        self, floats: nn.Module, plan: Plan, inputs: Sequence[Float[Tensor, "_ _ _ _"]]
    ) -> None:
        resolved = plan.resolve(floats)
        self._floats = floats
        self._inputs = inputs
        self._rounding = LayerwiseRounding(resolved=resolved, calibration=inputs)
        layers = find_layers(floats)
        owners: dict[int, str] = {}
        for name, entry in resolved.items():
            if entry.weight_bits is not None:
                owners.setdefault(id(layers[name].weight), name)
        errors = self._rounding.errors_alone(floats, list(owners.values()))
        self.stages = stages_of(errors, groups=GROUPS)
        self._methods = [
            "k-best" if is_small(layers, names) else "quantease" for names in self.stages
        ]
        self._ends = [end / PARTS for end in ends_of(PARTS, self.stages, alone=1)]

    def lead(self, model: nn.Module, share: float) -> bool:
        """Round the layers of all stages that have begun."""
        trained = _checked(model)
        free = set(trained.free)
        if not free:
            return False
        changed = False
        due = self.stage(share)[0] + 1
        for names, method in zip(self.stages[:due], self._methods[:due], strict=True):
            left = [name for name in names if name in free]
            if left:
                walked = self._rounding.round_by(
                    trained.network_now(), method, self._inputs, lambda _done, _total: None, left
                )
                trained.freeze({name: walked.weights[name] for name in left})
                changed = True
                log.info("rounded %s, %d layers left", _named(left), len(trained.free))
        return changed

    def stage(self, share: float) -> tuple[int, float]:
        """The stage, and how much of it is done."""
        number = min(bisect.bisect_right(self._ends, share), len(self._ends) - 1)
        begin = self._ends[number - 1] if number else 0.0
        return number, min((share - begin) / (self._ends[number] - begin), 1.0)

    def is_complete(self, model: nn.Module) -> bool:
        """Whether all layers are rounded."""
        return not _checked(model).free

    def errors(self, given: Tensor, restored: Tensor) -> Tensor:
        """Mean squared differences from the float network's outputs."""
        with torch.no_grad():
            wanted = self._floats(given)
        return squared_errors(restored, wanted)


def _named(layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{len(layers)} layers"


def _checked(model: nn.Module) -> TrainableModel:
    if isinstance(model, TrainableModel) and model.form == "incremental":
        return model
    raise SettingError("expected a model of the incremental form, found another one")
