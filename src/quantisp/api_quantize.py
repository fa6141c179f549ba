"""Quantizing a network into a file, composed from the rooms."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from quantisp.api import find_model
from quantisp.api_files import QuantizedOrigin, made_now, save_quantized, source_revision
from quantisp.api_inputs import Material, example_input, find_degradation
from quantisp.api_settings import calibration_for, check_seed
from quantisp.data import default_calibration
from quantisp.errors import ModelError, OutputError, SettingError
from quantisp.files import make_folder, write_atomically
from quantisp.models import LoadedModel, Origin, Provenance, model_sha256
from quantisp.quantization import (
    BATCH_NORMS,
    Checkpoints,
    FoldedNetwork,
    LayerCoverage,
    PadsInside,
    Plan,
    QuantizedModel,
    fold_batch_norms,
    quantize,
)
from quantisp.quantization.accumulator_plan import quantize_within
from quantisp.quantization.integer import (
    DOCUMENT,
    Accumulator,
    IntegerExecutor,
    integer_network,
    save_integer_network,
)

__all__ = ["QuantizedFile", "quantize_to_file"]

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class QuantizedFile:
    """What was written.

    Args:
        path: of the file.
        size_bytes: of the file.
        model: the name of the float network.
        float_sha256: its digest.
        plan: what was asked for.
        decisions: what ``auto`` tried and kept.
        coverage: what became of each layer that owns weights.
    """

    path: Path
    size_bytes: int
    model: str
    float_sha256: str
    plan: Plan
    decisions: tuple[str, ...]
    coverage: dict[str, LayerCoverage]


def quantize_to_file(
    model: str | Path,
    plan: Plan,
    out: Path,
    *,
    weights: str | Path | None = None,
    degradation: str | None = None,
    calibration: Sequence[str | Path] | None = None,
    accumulator: Accumulator | None = None,
    fit: bool = False,
    seed: int = 0,
    command: str,
    on_layer: Callable[[int, int], None] | None = None,
) -> QuantizedFile:
    """Quantize a network and write it to ``out``, which :func:`quantisp.load_model` takes.

    Where ``out`` has no ending it is the folder of an integer network, which commands take, too;
    ``plan.json`` in it is the plan, as :meth:`quantisp.Plan.from_json` reads it.

    Args:
        model, weights: as for :func:`quantisp.load_model`; a float network.
        plan: what becomes of each layer.
        out: a ``.safetensors`` file, made or replaced; or a folder.
        degradation: what the network undoes, as for :func:`quantisp.study`, for methods and
            activations that need inputs, and to see what batch normalisations follow.
        calibration: pictures for what needs some; None is two packaged ones.
        accumulator: of an integer network; None is as wide as sums have to be.
        fit: choose weights and widths of activations so that no input makes a sum that the
            accumulator does not hold.
        seed: of the calibration crops' places, and of what methods draw at random; recorded in the
            file with the pictures.
        command: recorded in the file.
        on_layer: called with the number of layers done, and of all.

    Raises:
        InputError: an unusable model, plan, picture or place; nothing is written.
        RunError: a method failed.
    """
    check_seed(seed)
    in_integers = not out.suffix
    if in_integers:
        _check_folder(out, plan)
    else:
        _check_place(out, model, weights)
    if accumulator is not None and not in_integers:
        raise SettingError(
            f"expected the folder of an integer network beside an accumulator's width, found {out}:"
            " give --out a name without an ending"
        )
    if fit and accumulator is None:
        raise SettingError(
            "expected an accumulator's width for sums that fit, found none: pass --accumulator-bits"
        )
    found = find_model(model, weights)
    if isinstance(found.model, QuantizedModel | IntegerExecutor):
        raise ModelError(
            f"expected a float network to quantize, {found.name} is quantized already: "
            "quantize the network that it was made from"
        )
    if found.preset is None:
        raise ModelError(
            f"expected a network that can be built again, {found.name} cannot: "
            "give a packaged name, a model file, or package.module:factory"
        )
    methods = {e.method for e in plan.resolve(found.model).values() if e.weight_bits is not None}
    if not methods:
        raise SettingError("expected at least one layer with weight bits, found none: plan some")
    inputs, data = _inputs(
        calibration,
        methods,
        found,
        degradation,
        in_integers=plan.quantizes_activations,
        seed=seed,
    )
    folding = _folded(found, degradation)
    if degradation is not None and inputs is None and not (folding.folded or folding.left):
        raise SettingError(
            f"expected no degradation, for the methods ({', '.join(sorted(methods))}) look at no "
            "inputs: leave out --degradation"
        )
    digest = model_sha256(found.model)
    made_by = made_now(found, command, data)
    kept = _checkpoints(out, plan, digest, inputs, seed)
    with kept.until_done():
        if fit and accumulator is not None and inputs is not None:
            quantized = quantize_within(
                folding.network,
                plan,
                inputs,
                accumulator.bits,
                seed=seed,
                on_layer=on_layer,
                checkpoints=kept,
            )
        else:
            quantized = quantize(
                folding.network, plan, inputs, seed=seed, on_layer=on_layer, checkpoints=kept
            )
        if in_integers:
            return _integer_folder(out, quantized, found, digest, accumulator, made_by)
        origin = Origin(preset=found.preset, pattern=found.pattern, provenance=made_by)
        made = QuantizedOrigin(origin=origin, float_sha256=digest, folded=folding.folded)
        make_folder(out.parent)
        save_quantized(out, quantized, made)
    return QuantizedFile(
        path=out,
        size_bytes=out.stat().st_size,
        model=found.name,
        float_sha256=digest,
        plan=plan,
        decisions=quantized.decisions,
        coverage=quantized.coverage,
    )


def _checkpoints(
    out: Path, plan: Plan, digest: str, inputs: Sequence[Tensor] | None, seed: int
) -> Checkpoints:
    """For what takes long, in a hidden folder beside ``out``."""
    if inputs is None:
        return Checkpoints()
    content = hashlib.sha256()
    for x in inputs:
        content.update(f"{tuple(x.shape)}".encode() + x.numpy().tobytes())
    parts = [plan.to_json(), digest, content.hexdigest(), seed, source_revision()]
    return Checkpoints(out.absolute().parent / f".{out.name}.rounding", json.dumps(parts))


def _integer_folder(
    out: Path,
    quantized: QuantizedModel,
    found: LoadedModel,
    digest: str,
    accumulator: Accumulator | None,
    provenance: Provenance,
) -> QuantizedFile:
    origin = {
        "model": found.name,
        "float_sha256": digest,
        "plan": quantized.plan.to_json(),
        "pads_inside": "yes" if isinstance(found.model, PadsInside) else "no",
        **Origin(
            preset=found.preset or "", pattern=found.pattern, provenance=provenance
        ).to_texts(),
    }
    network = replace(integer_network(quantized, accumulator), origin=origin)
    # Refuses what no executor can run, before anything is written.
    IntegerExecutor(network)
    save_integer_network(out, network)
    write_atomically(out / PLAN, quantized.plan.to_json().encode())
    return QuantizedFile(
        path=out,
        size_bytes=sum(file.stat().st_size for file in out.iterdir() if file.is_file()),
        model=found.name,
        float_sha256=digest,
        plan=quantized.plan,
        decisions=quantized.decisions,
        coverage=quantized.coverage,
    )


def _check_folder(out: Path, plan: Plan) -> None:
    """A folder that is new, empty, or of an integer network; of a plan that makes one."""
    if not plan.quantizes_activations:
        raise OutputError(
            f"expected a {SUFFIX} file as --out, for activations are in float, found {out}: end it "
            "so, or give --activation-bits"
        )
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    foreign = out.is_dir() and any(out.iterdir()) and not (out / DOCUMENT).is_file()
    if not nearest.is_dir() or foreign:
        raise OutputError(
            f"expected a new folder, or that of an integer network, as --out, found {out}: choose "
            "another name"
        )


def _check_place(out: Path, model: str | Path, weights: str | Path | None) -> None:
    """Find out before minutes of work whether the file can be written."""
    if out.suffix != SUFFIX:
        raise OutputError(f"expected a {SUFFIX} file as --out, found {out}: end it so")
    for given in (model, weights):
        if given is not None and Path(given).resolve() == out.resolve():
            raise OutputError(
                f"expected another file as --out than the network's own, found {out}: choose one"
            )
    nearest = next(path for path in out.absolute().parents if path.exists())
    if out.is_dir() or not nearest.is_dir():
        wrong = out if out.is_dir() else nearest
        raise OutputError(
            f"expected a file in a folder as --out, {wrong} is in its way: choose one"
        )


def _folded(found: LoadedModel, degradation: str | None) -> FoldedNetwork:
    """The network with its batch normalisations folded."""
    if not any(isinstance(module, BATCH_NORMS) for module in found.model.modules()):
        return FoldedNetwork(network=found.model, folded={}, left={})
    material = Material(degradation=find_degradation(found, degradation), pictures=())
    folding = fold_batch_norms(found.model, example_input(material))
    for name, reason in folding.left.items():
        log.info("in float: %s, for %s", name, reason)
    return folding


def _inputs(
    sources: Sequence[str | Path] | None,
    methods: set[str],
    found: LoadedModel,
    degradation: str | None,
    *,
    in_integers: bool,
    seed: int,
) -> tuple[list[Tensor] | None, str]:
    """The inputs to calibrate with, if something needs some, and what is recorded of them."""
    crops = calibration_for(sources, methods, None, needed=in_integers, seed=seed)
    if crops is None:
        return None, "not calibrated"
    material = Material(degradation=find_degradation(found, degradation), pictures=())
    paths = [file.path for file in default_calibration()] if sources is None else sources
    names = " ".join(Path(path).name for path in paths)
    data = f"calibrated on {names}: {len(crops.sha256)} pictures, seed {seed}"
    return material.degraded(crops), data
