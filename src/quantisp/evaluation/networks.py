"""The networks of a study's settings, rounded once for all that asks for them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import nn

from quantisp.evaluation.network_files import NetworkFiles
from quantisp.evaluation.request import StudyRequest
from quantisp.evaluation.treatments import file_stem, looks_at_inputs
from quantisp.inference import prepare
from quantisp.quantization import (
    Graph,
    Plan,
    QuantizedModel,
    capture,
    cast_network,
    quantize,
    quantize_activations,
)
from quantisp.records import Setting

__all__ = ["StudyNetworks"]

log = logging.getLogger(__name__)

OnLayer = Callable[[int, int], None]


class StudyNetworks:
    """Networks as ``prepare`` returns them: the float one, and others as they are asked for.

    Args:
        request: what is studied.
        device: where they run.
        files: keep what takes long to round.

    Attributes:
        original: the float network.
        shown: the settings that crops show, those of the first series, by their plans.
    """

    def __init__(self, request: StudyRequest, device: torch.device, files: NetworkFiles) -> None:
        self.request = request
        self.device = device
        self.files = files
        self.original = prepare(copy.deepcopy(request.model), device)
        series = request.settings[0].series
        self.shown = {
            request.plan_of(s): s for s in request.settings if s.is_uniform and s.series == series
        }
        # By plan, as long as crops may ask for them: what looks at inputs takes minutes to round.
        self._rounded: dict[Plan, nn.Module] = {}
        # The weights of the last plan, for all its activation widths; and the network as a graph.
        self._weights: QuantizedModel | None = None
        self._graph = request.graph

    def cast(self, weight_format: str) -> nn.Module:
        """The network with its weights in a float format."""
        cast = cast_network(self.request.model, weight_format, self.request.skip_layers)
        return prepare(cast, self.device)

    def quantized(self, plan: Plan, setting: Setting, on_layer: OnLayer | None = None) -> nn.Module:
        """The network as planned, which may take minutes.

        Args:
            plan: of weights and activations.
            setting: that it is the plan of.
            on_layer: called with the number of layers rounded, and of all, where it takes long.
        """
        if plan in self._rounded:
            return self._rounded[plan]
        quantized = self._with_weights(plan.without_activations(), setting, on_layer)
        if plan.quantizes_activations:
            quantized = quantize_activations(
                quantized, self.request.model, plan, self.request.calibration, graph=self.graph()
            )
        execution = self.request.execution
        runs: nn.Module = quantized
        if execution is not None and plan.quantizes_activations:
            runs = execution.network(quantized)
        network = prepare(runs, self.device)
        if plan in self.shown and (plan.quantizes_activations or looks_at_inputs(plan)):
            self._rounded[plan] = network
        return network

    def graph(self) -> Graph:
        """The network as a graph, captured once; there are inputs to calibrate with."""
        if self._graph is None:
            self._graph = capture(self.request.model, self.request.calibration[0])
        return self._graph

    def decisions(self, plan: Plan, setting: Setting) -> tuple[str, ...]:
        """What was decided when the weights were rounded."""
        if not looks_at_inputs(plan):
            return ()
        return self._with_weights(plan.without_activations(), setting, None).decisions

    def is_rounded(self, plan: Plan, setting: Setting) -> bool:
        """Whether its weights take no time any more; ``plan`` is without activations."""
        return not looks_at_inputs(plan) or self.files.get(file_stem(setting), plan) is not None

    def _with_weights(
        self, plan: Plan, setting: Setting, on_layer: OnLayer | None
    ) -> QuantizedModel:
        """The network with its weights rounded; activations in float."""
        if self._weights is not None and self._weights.plan == plan:
            return self._weights
        if not looks_at_inputs(plan):
            self._weights = quantize(self.request.model, plan, seed=self.request.seed)
            return self._weights
        stem = file_stem(setting)
        self._weights = self.files.get(stem, plan)
        if self._weights is None:
            self._weights = quantize(
                self.request.model,
                plan,
                self.request.calibration,
                seed=self.request.seed,
                on_layer=on_layer,
                checkpoints=self.files.checkpoints(stem, plan),
            )
            self.files.keep(stem, self._weights)
            for line in self._weights.decisions:
                log.info("%s: %s", setting.label, line)
        return self._weights
