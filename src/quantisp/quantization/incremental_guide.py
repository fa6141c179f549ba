"""Incremental fine-tuning: layers are rounded in turn, and what is in float makes up for them.

As the method of the same name (:mod:`quantisp.quantization.methods.incremental`, with its sources),
in the course of a training run: as many steps as there is time for, on patches each of which is
seen twice, since the float network's output for it is known then.
Ranges are equalized first, which leaves the output as it is: those of weights
(:mod:`quantisp.quantization.methods.equalization`), or of residual streams
(:mod:`quantisp.quantization.activations.streams`) where activations bring the most error and sums
are wide.
Activations are put in integers, too. Where they bring more error than all weights together, that is
from the first step on, with all weights in float until most of the time is over, for then rounding
them is what costs least; and else for the last two stages, since steps take half as long again, or
twice as long, with them. It is knowledge distillation: the float network is the teacher, and no
ground truth is looked at. The method has a loop of its own, for it has to do with hundreds of
steps, on a few inputs and without files; here the trainer's is used, which can be killed and goes
on. Rates and stages were chosen for the time that each has.
"""

from __future__ import annotations

import bisect
import copy
import logging
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim

from quantisp.errors import SettingError
from quantisp.quantization.activations.streams import equalize_streams
from quantisp.quantization.bfloat16 import harmless, in_bfloat16
from quantisp.quantization.curvature import output_curvatures
from quantisp.quantization.layers import bias_of, find_layers
from quantisp.quantization.layerwise import LayerwiseRounding
from quantisp.quantization.methods.equalization import equalize
from quantisp.quantization.natural import WhitenedMuon, metrics_of
from quantisp.quantization.network import output_error, squared_errors
from quantisp.quantization.plan import Plan
from quantisp.quantization.quantizing import quantize
from quantisp.quantization.stages import ends_of, grouped, method_of, stages_of
from quantisp.quantization.statistics import first_inputs, float_statistics
from quantisp.quantization.trainable import TrainableModel
from quantisp.quantization.watching import beside

__all__ = ["IncrementalGuide"]

log = logging.getLogger(__name__)

# Parts of a run, fine enough for every length.
PARTS = 10**9
# Stages with activations in integers, where weights are what brings the most error.
STAGES_JOINED = 2
# Where activations are, the share of the run before all layers are rounded.
IN_FLOAT = 0.9
# Enough to tell which brings more.
INPUTS_COMPARED = 4
# What one step counts in the error that is told.
FORGETTING = 0.05
# Batches that come once, and then once more.
AGAIN = 64


class IncrementalGuide:
    """Says which layers are rounded when, and rounds them.

    Args:
        floats: the float network, in evaluation mode, on the device of the run.
        plan: of its layers; K-best and YAQA take the place of its methods.
        inputs: network inputs that layers are rounded by.
        in_float32: train all layers in float32, even on hardware that has bfloat16.

    Attributes:
        begins_with: a network that gives what ``floats`` gives, maybe by other weights.
        stages: which layers are rounded together, in their order.
        bfloat16_layers: those that may be trained in bfloat16.
    """

    def __init__(
        self,
        floats: nn.Module,
        plan: Plan,
        inputs: Sequence[Float[Tensor, "_ _ _ _"]],
        *,
        in_float32: bool = False,
    ) -> None:
        resolved = plan.resolve(floats)
        self._floats = floats
        self._activations = plan.without_weights() if plan.quantizes_activations else None
        self._inputs = inputs
        self._rounding = LayerwiseRounding(resolved=resolved, calibration=inputs)
        layers = find_layers(floats)
        owners: dict[int, str] = {}
        for name, entry in resolved.items():
            if entry.weight_bits is not None:
                owners.setdefault(id(layers[name].weight), name)
        names = list(owners.values())
        base = equalize(floats, beside(floats, inputs[0]), names)
        errors = self._rounding.errors_alone(base, names, _ignore)
        self._joins_first = self._activations_matter_most(math.fsum(errors.values()))
        if self._joins_first:
            # With narrow sums it is no help.
            is_wide = plan.activations.sum_bits is not None
            base = equalize_streams(floats, first_inputs(inputs)) if is_wide else floats
            errors = self._rounding.errors_alone(base, names, _ignore)
        self.begins_with = base
        self.stages = stages_of(errors)
        self._methods = [method_of(layers, stage) for stage in self.stages]
        moments = float_statistics(base, names, first_inputs(inputs))
        self._curvatures = output_curvatures(base, names, inputs, moments)
        self._metrics = metrics_of(self._curvatures, moments)
        self.bfloat16_layers = (
            () if in_float32 else harmless(base, grouped(self.stages), errors, inputs)
        )
        self._wanted: dict[tuple[int, torch.Size], Tensor] = {}
        # The mean of the errors' logarithms, of late; None before there are some.
        self._late: Tensor | None = None
        # Of each phase, when it ends, and how many stages have begun by then.
        self._ends = [end / PARTS for end in ends_of(PARTS, self.stages, alone=1)]
        self._begun = list(range(1, len(self.stages) + 1))
        if self._joins_first:
            self._ends, self._begun = [IN_FLOAT, 1.0], [0, len(self.stages)]

    def optimizer(self, model: nn.Module) -> optim.Optimizer:
        """Moves the weights of layers that are still in float, in the metric of the output."""
        network = _checked(model).network
        layers = [
            (layer, layer.get_parameter("weight"), metric)
            for name, metric in self._metrics.items()
            for layer in [network.get_submodule(name)]
        ]
        # They are in units of a code each, and so is the rate.
        return WhitenedMuon(layers, [1.0] * len(layers))

    def lead(self, model: nn.Module, share: float) -> bool:
        """Round the layers of all stages that have begun."""
        trained = _checked(model)
        free = set(trained.free)
        due = self._begun[self.stage(share)[0]]
        joins = self._joins_first or due > len(self.stages) - STAGES_JOINED
        changed = joins and self._join(trained)
        for stage, method in zip(self.stages[:due], self._methods[:due], strict=True):
            left = [name for name in stage.layers if name in free]
            if left:
                walked = self._rounding.round_by(
                    trained.network_now(),
                    method,
                    self._inputs,
                    _ignore,
                    left,
                    self._curvatures,
                    # What they do to each other is made up for by what follows, if there is much.
                    apart=stage is not self.stages[-1],
                )
                trained.freeze(
                    {name: walked.weights[name] for name in left},
                    {name: bias_of(walked.network.get_submodule(name)) for name in left},
                )
                changed = True
                log.info(
                    "rounded %s, %d layers left%s", _named(left), len(trained.free), self._before()
                )
        return changed

    def stage(self, share: float) -> tuple[int, float]:
        """The phase, and how much of it is done.

        There is one for each stage; or, where activations bring the most error, two: before all is
        rounded, and after.
        """
        number = min(bisect.bisect_right(self._ends, share), len(self._ends) - 1)
        begin = self._ends[number - 1] if number else 0.0
        return number, min((share - begin) / (self._ends[number] - begin), 1.0)

    def is_complete(self, model: nn.Module) -> bool:
        """Whether all layers are rounded, and activations are quantized."""
        trained = _checked(model)
        return trained.has_joined and not trained.free

    def batch_of(self, step: int) -> int:
        """So many in a row, and the same ones again."""
        row, place = divmod(step, 2 * AGAIN)
        return row * AGAIN + place % AGAIN

    def errors(self, given: Tensor, restored: Tensor, batch: int) -> Tensor:
        """Mean squared differences from the float network's outputs."""
        found = squared_errors(restored, self._wanted_of(given, batch))
        seen = found.detach().log().mean()
        self._late = seen if self._late is None else self._late.lerp(seen, FORGETTING)
        return found

    @torch.no_grad()
    def _wanted_of(self, given: Tensor, batch: int) -> Tensor:
        """The float network's outputs; those of the last batches are known."""
        known = self._wanted.pop((batch, given.shape), None)
        if known is not None:
            return known
        with in_bfloat16(self._floats, self.bfloat16_layers):
            wanted = self._floats(given)
        self._wanted[batch, given.shape] = wanted
        while len(self._wanted) > AGAIN:
            del self._wanted[next(iter(self._wanted))]
        return wanted

    def _activations_matter_most(self, weights: float) -> bool:
        """Whether all of them alone bring more than the squared error that weights do."""
        if self._activations is None:
            return False
        inputs = [beside(self._floats, x) for x in self._inputs[:INPUTS_COMPARED]]
        alone = quantize(self._floats, self._activations, self._inputs)
        return output_error(alone, self._floats, inputs) > weights

    def _join(self, trained: TrainableModel) -> bool:
        if self._activations is None or trained.has_joined:
            return False
        # Without what the trainer has hooked to the layers.
        network = copy.deepcopy(self._floats)
        network.load_state_dict(trained.network_now().state_dict())
        found = quantize(network, self._activations, self._inputs).activations
        if found is None:
            return False
        trained.join_activations(found)
        log.info("activations are quantized from now on%s", self._before())
        return True

    def _before(self) -> str:
        if self._late is None:
            return ""
        psnr_db = -10.0 * float(self._late) / math.log(10.0)
        return f" ({psnr_db:.1f} dB to the float network before)"


def _ignore(_done: int, _total: int) -> None:
    """No report: a stage is told in whole."""


def _named(layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{len(layers)} layers"


def _checked(model: nn.Module) -> TrainableModel:
    if isinstance(model, TrainableModel) and model.form == "incremental":
        return model
    raise SettingError("expected a model of the incremental form, found another one")
