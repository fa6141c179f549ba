"""AIMET (Qualcomm): AdaRound and sequential MSE, and cross-layer equalization before them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .task import Outcome, Task, Weights
from .torchvision_shim import declare_torchvision_operators
from .twin import WithFolding

# The toolkit's own default.
CANDIDATES = 20
BATCH = 4


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """The folded calibration crops, one by one."""

    def __init__(self, task: Task) -> None:
        self.phases, self.planes = (torch.cat(part) for part in zip(*task.folded(), strict=True))

    def __len__(self) -> int:
        return len(self.phases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.phases[index], self.planes[index]


def measure_aimet(task: Task, variant: str) -> Outcome:
    """Quantize with AIMET.

    Args:
        task: what to quantize.
        variant: ``nearest`` (its ranges alone), ``seqmse``, or ``adaround``; with ``cle-`` before
            it, after cross-layer equalization.
    """
    declare_torchvision_operators()
    from aimet_torch.model_preparer import prepare_model

    torch.manual_seed(task.seed)
    loader = DataLoader(Crops(task), batch_size=BATCH)
    dummy = tuple(part[:1] for part in task.folded()[0])
    model = prepare_model(task.twin())
    equalized = variant.startswith("cle-")
    if equalized:
        from aimet_torch.cross_layer_equalization import equalize_model

        equalize_model(model, dummy_input=dummy)
    method = variant.removeprefix("cle-")
    settings = f"{method}, symmetric, per channel" + (", equalized" if equalized else "")
    if method == "adaround":
        sim = _adarounded(model, dummy, loader, task)
        settings += f", {task.iterations} iterations a layer"
    else:
        sim = _simulation(model, dummy, task)
        if method == "seqmse":
            _sequential_mse(sim, loader)
            settings += f", {CANDIDATES} candidates"
    sim.compute_encodings(_run_all, loader)
    weights = _weights(sim.model)
    if task.activation_bits is None:
        return Outcome(weights=weights, network=None, settings=settings)
    settings += ", activations per tensor by the scheme post_training_tf_enhanced"
    network = WithFolding(sim.model, task.network)
    return Outcome(weights=weights, network=network, settings=settings)


def _simulation(model: nn.Module, dummy: tuple[Tensor, ...], task: Task) -> Any:
    from aimet_torch.common.defs import QuantScheme
    from aimet_torch.quantsim import QuantizationSimModel

    return QuantizationSimModel(
        model,
        dummy_input=dummy,
        # Its range search by squared error; the other scheme takes the absolute maximum.
        quant_scheme=QuantScheme.post_training_tf_enhanced,
        default_param_bw=task.weight_bits,
        default_output_bw=task.activation_bits or 8,
        config_file=str(_config()),
    )


def _config() -> Path:
    """The toolkit's own description of a target with a scale for each output channel."""
    import aimet_torch.common.quantsim_config as package

    return Path(package.__file__).parent / "default_config_per_channel.json"


def _sequential_mse(sim: Any, loader: DataLoader[Any]) -> None:
    from aimet_torch.seq_mse import apply_seq_mse

    apply_seq_mse(sim, loader, num_candidates=CANDIDATES, forward_fn=_forward)


def _adarounded(
    model: nn.Module, dummy: tuple[Tensor, ...], loader: DataLoader[Any], task: Task
) -> Any:
    from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters
    from aimet_torch.common.defs import QuantScheme

    parameters = AdaroundParameters(
        loader, len(loader), default_num_iterations=task.iterations, forward_fn=_forward
    )
    with tempfile.TemporaryDirectory() as folder:
        rounded = Adaround.apply_adaround(
            model,
            dummy,
            parameters,
            folder,
            "adaround",
            default_param_bw=task.weight_bits,
            default_quant_scheme=QuantScheme.post_training_tf_enhanced,
            default_config_file=str(_config()),
        )
        sim = _simulation(rounded, dummy, task)
        sim.set_and_freeze_param_encodings(str(Path(folder) / "adaround.encodings"))
    return sim


def _forward(model: nn.Module, inputs: Any) -> Any:
    return model(*inputs)


@torch.no_grad()
def _run_all(model: nn.Module, loader: DataLoader[Any]) -> None:
    for inputs in loader:
        model(*inputs)


@torch.no_grad()
def _weights(model: nn.Module) -> Weights:
    from aimet_torch.nn import BaseQuantizationMixin

    found: dict[str, tuple[Tensor, Tensor | None]] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, BaseQuantizationMixin) or not isinstance(layer, nn.Conv2d):
            continue
        quantizer = layer.param_quantizers["weight"]
        weight = quantizer(layer.weight).dequantize().as_subclass(Tensor).clone()
        bias = layer.bias
        found[name] = (weight, None if bias is None else bias.detach().clone())
    return found
