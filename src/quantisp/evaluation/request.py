"""What a study is asked for, and what tells it from another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quantisp.evaluation.crops import CropPlace
from quantisp.evaluation.degradation import Degradation
from quantisp.evaluation.execution import Execution
from quantisp.evaluation.pictures import StudyPicture
from quantisp.evaluation.protocol import describe_measurement
from quantisp.evaluation.treatments import plan_of
from quantisp.quantization import ActivationSettings, Budget, Graph, NetworkWork, Plan
from quantisp.records import LayerResult, Setting

__all__ = ["StudyRequest"]


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What to study.

    Args:
        name: of the model, for people.
        model: undoes the degradation; it is not changed.
        model_sha256: the digest of its weights.
        degradation: what is done to each picture.
        pictures: at least one.
        settings: at least one; rows come in this order.
        within_db: the drop that the recommendation allows.
        crop_places: what to show; empty is the places where bits hurt most.
        calibration: network inputs, for settings whose methods need some.
        calibration_sha256: the digest of each picture that they were cut from.
        seed: what they were cut by, and of what methods draw at random.
        skip_layers: the names of layers that stay in float.
        coverage: what became of each module with parameters.
        plans: of the settings that name one.
        budgets: of the settings whose plan the study is to choose.
        work: of the network, from which costs follow; None leaves them out.
        activations: how activations are quantized, in settings that give them bits.
        input_bits: what the input of every network, the float one too, is rounded to; None leaves
            it as it is.
        graph: of the model, where it has been captured already.
        execution: how activations in integers run; None is simulated in float32.
        file_texts: what the files of quantized networks say beside what is in them.
    """

    name: str
    model: nn.Module
    model_sha256: str
    degradation: Degradation
    pictures: Sequence[StudyPicture]
    settings: Sequence[Setting]
    within_db: float
    crop_places: Sequence[CropPlace] = ()
    calibration: Sequence[Tensor] = ()
    calibration_sha256: Sequence[str] = ()
    seed: int = 0
    skip_layers: Sequence[str] = ()
    coverage: tuple[LayerResult, ...] = ()
    plans: Mapping[Setting, Plan] = field(default_factory=dict[Setting, Plan])
    budgets: Mapping[Setting, Budget] = field(default_factory=dict[Setting, Budget])
    work: NetworkWork | None = None
    activations: ActivationSettings = field(default_factory=ActivationSettings)
    input_bits: int | None = None
    graph: Graph | None = None
    execution: Execution | None = None
    file_texts: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def has_captures(self) -> bool:
        """Whether raw files are studied, of which nobody knows the truth."""
        return any(picture.capture is not None for picture in self.pictures)

    def plan_of(self, setting: Setting) -> Plan:
        """The plan that a setting stands for in this study."""
        return plan_of(setting, self.skip_layers, self.activations)

    def protocol(self) -> dict[str, str | int | float]:
        """How quality is measured."""
        widths = [s.activation_bits for s in self.settings]
        return describe_measurement(self.input_bits, widths, self.activations, self.execution)

    def identity(self, device: torch.device) -> dict[str, object]:
        """What tells this study from another one in the same folder."""
        return {
            "model": self.model_sha256,
            "degradation": dict(self.degradation.identity()),
            "pictures": [picture.content_sha256 for picture in self.pictures],
            "settings": [self._describe(setting) for setting in self.settings],
            "protocol": self.protocol(),
            "tolerance": self.within_db,
            "calibration": list(self.calibration_sha256),
            "seed": self.seed,
            # Not of the result, but sums in another order would not give the same bytes.
            "device": device.type,
            "torch version": torch.__version__,
        }

    def _describe(self, setting: Setting) -> object:
        if setting.weight_format is not None:
            return {"weight_format": setting.weight_format, "float": list(self.skip_layers)}
        if setting in self.budgets:
            return {"budget": str(self.budgets[setting]), "plan": self.plan_of(setting).to_json()}
        if setting in self.plans:
            return {"name": setting.plan, "plan": self.plans[setting].to_json()}
        return self.plan_of(setting).to_json()
