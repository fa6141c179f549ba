"""Measuring one network, composed from the rooms."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from quantisp.api_inputs import Sources, example_input, find_material, try_out
from quantisp.api_integers import check_place
from quantisp.api_models import DEFAULT_MODEL, Model, find_model
from quantisp.api_settings import calibration_for, check_seed
from quantisp.cfa import CFAPattern
from quantisp.errors import ModelError, SettingError
from quantisp.evaluation import evaluate_pictures
from quantisp.inference import find_device
from quantisp.models import model_sha256
from quantisp.quantization import Plan, QuantizedModel, fold_batch_norms, quantize
from quantisp.quantization.integer import IntegerExecutor
from quantisp.records import EvaluationResult

__all__ = ["evaluate"]

log = logging.getLogger(__name__)


def evaluate(
    model: Model = DEFAULT_MODEL,
    images: Sources | None = None,
    *,
    weights: str | Path | None = None,
    pattern: str | CFAPattern | None = None,
    degradation: str | None = None,
    inputs: str | Path | None = None,
    targets: str | Path | None = None,
    plan: Plan | None = None,
    calibration: Sources | None = None,
    border_px: int = 10,
    seed: int = 0,
    device: str = "auto",
    on_read: Callable[[int, int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """PSNR and SSIM of each picture, degraded and restored, and the means.

    Args:
        model, weights, pattern: as for :func:`load_model`, or a network.
        images: files, folders, globs, or the word ``sample``.
        degradation: as for :func:`study`.
        inputs, targets: as for :func:`study`.
        plan: quantizes the network first; None is float.
        calibration: pictures for methods of the plan that need some; None is two packaged ones.
        border_px: left out at each side for one of the figures.
        seed: of the calibration crops' places, and of what methods of the plan draw at random.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        on_read: called with the number of pictures read, and of all.
        on_progress: called with the number of pictures restored, and of all.

    Raises:
        InputError: an unusable model, picture or setting.
    """
    check_seed(seed)
    found = find_model(model, weights, pattern=pattern)
    place = find_device(device)
    material = find_material(
        found, images, degradation=degradation, pairs=(inputs, targets), on_read=on_read
    )
    network = found.model
    check_place(network, place, device)
    try_out(network, place, material)
    if plan is not None and isinstance(network, QuantizedModel | IntegerExecutor):
        raise ModelError(
            f"expected a float network beside a plan, {found.name} is quantized already: "
            "leave out the plan, or give the network that it was made from"
        )
    if plan is not None:
        folding = fold_batch_norms(network, example_input(material))
        network = folding.network
        for name, reason in folding.left.items():
            log.info("in float: %s, for %s", name, reason)
        planned = plan.resolve(network).values()
        methods = {entry.method for entry in planned if entry.weight_bits is not None}
        crops = calibration_for(
            calibration,
            methods,
            material,
            needed=plan.quantizes_activations,
            seed=seed,
        )
        given = None if crops is None else material.degraded(crops)
        network = quantize(network, plan, given, seed=seed)
    elif calibration is not None:
        raise SettingError("expected a plan beside calibration pictures, found none: pass --plan")
    return evaluate_pictures(
        name=found.name,
        model=network,
        model_sha256=model_sha256(found.model),
        degradation=material.degradation,
        pictures=material.pictures,
        device=place,
        border_px=border_px,
        on_progress=on_progress,
    )
