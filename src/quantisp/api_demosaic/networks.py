"""The model of a run, once for each CFA that its captures have."""

from __future__ import annotations

import copy
import itertools
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from quantisp.api import find_model
from quantisp.api_demosaic.develop import ReadyNetwork
from quantisp.api_demosaic.settings import DemosaicSettings
from quantisp.api_inputs import Material, example_input, find_degradation
from quantisp.api_integers import field_of
from quantisp.cfa import CFAPattern, alignment
from quantisp.data import calibration_crops, default_calibration
from quantisp.errors import ModelError
from quantisp.inference import Interface, check_network, prepare
from quantisp.models import (
    LoadedModel,
    check_pattern,
    classical_methods,
    fitting_models,
    model_sha256,
    packaged_models,
)
from quantisp.quantization import (
    Plan,
    QuantizedModel,
    fold_batch_norms,
    needs_calibration,
    quantize,
)
from quantisp.quantization.integer import IntegerExecutor

__all__ = ["Networks"]

log = logging.getLogger(__name__)

# Fitted to a few CFAs, each of which may begin in any phase.
LINEAR = "linear"
# The packaged network for each capture's CFA.
AUTO = "auto"
# Responses that differ by less are the same for the eye.
LIKE = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    loaded: LoadedModel
    shift: tuple[int, int]


class Networks:
    """The model, found, quantized and checked as it is needed.

    Args:
        model, weights: as for :func:`quantisp.load_model`; ``auto`` is the packaged network for
            each CFA, and of several one that was trained on captures' light.
        settings: of the run.
        device: where it runs.

    Raises:
        ModelError: no such model.
    """

    def __init__(
        self,
        model: str | Path | nn.Module,
        weights: str | Path | None,
        settings: DemosaicSettings,
        device: torch.device,
    ) -> None:
        self.model, self.weights, self.settings, self.device = model, weights, settings, device
        if model == AUTO and weights is not None:
            raise ModelError(
                f"expected package.module:factory beside --weights {weights}, found none: give "
                "--model"
            )
        self._one = None if self._takes_any() else find_model(model, weights)
        self._found: dict[CFAPattern, _Found] = {}
        self._ready: dict[CFAPattern, tuple[ReadyNetwork, ReadyNetwork | None]] = {}

    def name(self, pattern: CFAPattern) -> str:
        """Of the model for a CFA, for people."""
        return self._find(pattern).loaded.name if self.model == AUTO else self._said

    def check(self, pattern: CFAPattern) -> None:
        """Find out whether the model takes a CFA.

        Raises:
            ModelError: it does not; which ones do is said.
        """
        self._find(pattern)

    def identity(self, pattern: CFAPattern) -> dict[str, str]:
        """What the model computes for a CFA."""
        found = self._find(pattern).loaded
        cfa = "" if found.pattern is None else f"{found.pattern.tile} {found.pattern.responses}"
        return {"name": type(found.model).__name__, "sha256": model_sha256(found.model), "cfa": cfa}

    def ready(self, pattern: CFAPattern) -> tuple[ReadyNetwork, ReadyNetwork | None]:
        """The network that runs and, if that is quantized by the settings, the float one.

        Raises:
            ModelError, PlanError: it cannot be quantized so, or does not restore pictures.
        """
        if pattern not in self._ready:
            # One at a time: a network for the next CFA needs the memory.
            self._ready.clear()
            self._ready[pattern] = self._prepare(self._find(pattern))
        return self._ready[pattern]

    @property
    def _said(self) -> str:
        return str(self.model) if self._one is None else self._one.name

    def _takes_any(self) -> bool:
        return isinstance(self.model, str) and self.model in (AUTO, *classical_methods())

    def _find(self, pattern: CFAPattern) -> _Found:
        if pattern not in self._found:
            self._found[pattern] = self._find_anew(pattern)
        return self._found[pattern]

    def _find_anew(self, pattern: CFAPattern) -> _Found:
        if self.model == LINEAR:
            return self._find_linear(pattern)
        if self.model == AUTO:
            return self._fitted(pattern, find_model(packaged_network(pattern)))
        if self._one is None:
            return _Found(
                loaded=find_model(self.model, self.weights, pattern=pattern), shift=(0, 0)
            )
        return self._fitted(pattern, self._one)

    def _fitted(self, pattern: CFAPattern, found: LoadedModel) -> _Found:
        made_for = found.pattern
        shift = None if made_for is None else alignment(pattern, made_for.tile)
        if made_for is None or shift is None:
            check_pattern(found, pattern)
            raise ModelError(f"expected a model that names its CFA, {found.name} names none")
        for letter in pattern.letters:
            pairs = zip(pattern.response(letter), made_for.response(letter), strict=True)
            if max(abs(one - other) for one, other in pairs) > LIKE:
                collects = ", ".join(f"{share:.2f}" for share in pattern.response(letter))
                log.warning(
                    "%s of this capture collects %s of balanced R, G, B, not what %s was trained "
                    "for: saturated colours come out a little off",
                    letter,
                    collects,
                    found.name,
                )
        return _Found(loaded=found, shift=shift)

    def _find_linear(self, pattern: CFAPattern) -> _Found:
        tall, wide = pattern.period
        for rows, columns in itertools.product(range(tall), range(wide)):
            phase = CFAPattern(tile=pattern.crop(top=-rows, left=-columns).tile).recognised()
            if f"{LINEAR}-{phase}" in fitting_models(phase):
                return _Found(loaded=find_model(LINEAR, pattern=phase), shift=(rows, columns))
        # Which refuses it, and says what there is.
        return _Found(loaded=find_model(LINEAR, pattern=pattern), shift=(0, 0))

    def _prepare(self, found: _Found) -> tuple[ReadyNetwork, ReadyNetwork | None]:
        loaded, plan = found.loaded, self.settings.plan
        if loaded.pattern is None:
            raise ModelError(f"expected a model that names its CFA, {loaded.name} names none")
        interface = Interface.of_mosaic(loaded.pattern)
        check_network(loaded.model, self.device, interface)
        field = field_of(loaded.model, interface)
        if field is None:
            log.warning("%s is not bounded: each capture is restored at once", loaded.name)
        domain = self.settings.domain or loaded.capture_domain

        def at_work(network: nn.Module) -> ReadyNetwork:
            return ReadyNetwork(
                network=prepare(copy.deepcopy(network), self.device),
                field=field,
                shift=found.shift,
                domain=domain,
                tile_px=self.settings.tile_px,
            )

        if plan is None:
            return at_work(loaded.model), None
        return at_work(_quantized(loaded, plan)), at_work(loaded.model)


def packaged_network(pattern: CFAPattern) -> str:
    """The packaged network for a CFA in any phase; one of captures' light before one of sRGB.

    Raises:
        ModelError: there is none; the methods and models that fit are said.
    """
    tall, wide = pattern.period
    for rows, columns in itertools.product(range(tall), range(wide)):
        phase = CFAPattern(tile=pattern.crop(top=-rows, left=-columns).tile).recognised()
        fitting = [name for name in fitting_models(phase) if name in packaged_models()]
        found = [find_model(name) for name in fitting if not name.startswith(f"{LINEAR}-")]
        if found:
            return min(found, key=lambda one: (_trained_on_srgb(one), one.name)).name
    said = ", ".join(fitting_models(pattern))
    raise ModelError(
        f"expected a CFA that a network is packaged for, found {pattern}: pass --model, one of "
        f"{said}, or train one with `quantisp train --cfa {pattern}`"
    )


def _trained_on_srgb(found: LoadedModel) -> bool:
    return found.provenance is None or found.provenance.domain == "srgb"


def _quantized(loaded: LoadedModel, plan: Plan) -> QuantizedModel:
    if isinstance(loaded.model, QuantizedModel | IntegerExecutor):
        raise ModelError(
            f"expected a float network to quantize, {loaded.name} is quantized already: leave out "
            "--bits"
        )
    material = Material(degradation=find_degradation(loaded, None), pictures=())
    network = fold_batch_norms(loaded.model, example_input(material)).network
    planned = plan.resolve(network).values()
    methods = {entry.method for entry in planned if entry.weight_bits is not None}
    inputs = None
    if plan.quantizes_activations or any(needs_calibration(method) for method in methods):
        inputs = material.degraded(calibration_crops(default_calibration()))
    return quantize(network, plan, inputs)
