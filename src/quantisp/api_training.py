"""Training, composed from the rooms: the part of the public functions that makes models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from quantisp.api import find_model
from quantisp.api_files import holds_quantized, printable, source_revision
from quantisp.api_fine_tuning import FineTunedRun, FineTuning, begin_fine_tuning
from quantisp.api_training_pictures import (
    data_named,
    decoded_tiles,
    find_pictures,
    tiles_on_device,
    validation_picture,
)
from quantisp.cfa import CFAPattern
from quantisp.data import (
    PatchCache,
    remove_tiles,
)
from quantisp.errors import ModelError, SettingError
from quantisp.inference import find_device
from quantisp.models import (
    Origin,
    Provenance,
    build_preset,
    load_own_model,
    write_model_file,
)
from quantisp.training import (
    RECORD_NAME,
    CurvePoint,
    TrainingBoard,
    TrainProgress,
    TrainSettings,
    check_run_folder,
    is_first_process,
    start_workers,
    train,
    write_record,
)

__all__ = ["train_model"]

log = logging.getLogger(__name__)

CACHE_NAME = "cache"
TRAINED_NAME = "model.safetensors"
DEFAULT_CFA = "rgbw-kodak"


def train_model(
    *,
    preset: str,
    pattern: CFAPattern | None = None,
    data: Sequence[str | Path],
    validation: Sequence[str | Path] = (),
    out: Path,
    settings: TrainSettings,
    command: str,
    init: str | Path | None = None,
    resume: bool = False,
    cache: Path | None = None,
    hdrplus: str = "final",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    compiled: bool = False,
    fine_tuning: FineTuning | None = None,
    on_read: Callable[[int, int], None] | None = None,
    on_layer: Callable[[int, int], None] | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> tuple[CurvePoint, ...]:
    """Train a network, and keep the best weights by validation in ``out/model.safetensors``.

    Args:
        preset: which network: a preset's name, or ``package.module:factory`` for one's own.
        pattern: the CFA to train it for; None is RGBW-K, or that of one's own network.
        data: files, folders, globs or data sets of pictures to train on.
        validation: the same of pictures to validate on, others than those; empty takes the
            validation part of the data set, or holds out every 20th picture of ``data``.
        out: the folder of the run, made if need be.
        settings: how to train.
        command: recorded with the weights.
        init: a model of the same network to begin from, or None. If it is for another CFA, the
            layers that meet the CFA begin anew. For one's own network, its state dict.
        resume: go on from the checkpoint in ``out``.
        cache: where decoded pictures are kept for other runs; None keeps them in ``out`` while
            the run lasts.
        hdrplus: what to take of an HDR+ data set: ``final`` or ``merged``.
        device: ``auto``, ``cpu``, ``cuda`` and so on.
        devices, nodes: how many devices on each machine, and machines, train together.
        compiled: train by way of torch.compile.
        fine_tuning: quantizes the network of ``init`` and trains it so; the file is then that of a
            quantized network. None trains in float.
        on_read: called with the number of pictures read, and of all.
        on_layer: called with the number of layers rounded, and of all.
        on_progress: called about once a second.

    Raises:
        InputError: unusable pictures, settings, models or places.
        RunError: the loss went astray again and again.
    """
    if is_first_process():
        check_run_folder(out, resume=resume)
    torch.manual_seed(settings.seed)
    model, pattern = _network(preset, pattern, init)
    if fine_tuning is not None:
        _check_domain(settings.domain)
        fine_tuning.check(model, trained=init is not None or ":" in preset)
        fine_tuning.check_machine(
            devices=devices, nodes=nodes, compiled=compiled, precision=settings.precision
        )
    place = find_device(device)
    pictures = find_pictures(data, validation, hdrplus)
    held_out = [validation_picture(file, pattern) for file in pictures.validation]
    workers = start_workers(place, devices=devices, nodes=nodes)
    kept = cache or out / CACHE_NAME
    tiles = decoded_tiles(pictures.train, kept, settings, workers, on_read)
    revision = source_revision()
    began = datetime.now(UTC).isoformat(timespec="seconds")

    def origin(validated: str) -> Origin:
        provenance = Provenance(
            domain=settings.domain,
            command=printable(command),
            data=printable(data_named(data, tiles)),
            date=began,
            revision=revision,
            validation_psnr_db=validated,
        )
        return Origin(preset=preset, pattern=pattern, provenance=provenance)

    patches = PatchCache(
        tiles_on_device(tiles, workers.device),
        detail_power=settings.detail_power,
        exposure_jitter=settings.exposure_jitter,
        colour_jitter=settings.colour_jitter,
    )
    tuned = None
    if fine_tuning is not None:
        tuned = begin_fine_tuning(
            model,
            fine_tuning,
            patches,
            held_out,
            seed=settings.seed,
            largest_px=max(settings.patch_px, settings.last_patch_px),
            pattern=pattern,
            origin=origin,
            path=out / TRAINED_NAME,
            workers=workers,
            in_float32=settings.precision == "float32",
            on_layer=on_layer,
        )
    keep = _keeper(out / TRAINED_NAME, len(held_out), pattern, origin, tuned)
    first = workers.rank == 0
    with TrainingBoard(out / "tensorboard") if first else nullcontext() as board:

        def tell(progress: TrainProgress) -> None:
            if board is not None:
                board.show(progress)
            if on_progress is not None:
                on_progress(progress)

        curve = train(
            tuned.model if tuned else model,
            patches,
            held_out,
            settings,
            pattern=pattern,
            folder=out,
            resume=resume,
            workers=workers,
            compiled=compiled,
            identity=tuned.identity if tuned else {},
            guide=tuned.guide if tuned else None,
            on_progress=tell if first else None,
            on_better=keep if first else None,
        )
    if first:
        write_record(
            out / RECORD_NAME,
            command=printable(command),
            revision=revision,
            settings=settings,
            tiles=tiles,
            validation=pictures.validation,
            curve=curve,
            quantization=tuned.record() if tuned else None,
        )
        if cache is None:
            remove_tiles(kept)
    return curve


def _check_domain(domain: str) -> None:
    if domain != "srgb":
        raise SettingError(
            f"expected mosaics in sRGB to fine-tune in integers, found --domain {domain}: leave "
            "out one"
        )


def _keeper(
    path: Path,
    pictures: int,
    pattern: CFAPattern,
    origin: Callable[[str], Origin],
    tuned: FineTunedRun | None,
) -> Callable[[nn.Module, CurvePoint], None]:
    """What writes the weights at each validation that is the best so far."""

    def keep(averaged: nn.Module, point: CurvePoint) -> None:
        found = origin(f"{point.psnr_db:.3f} (mean of {pictures} pictures, step {point.step})")
        if tuned is not None:
            tuned.keep(averaged, point, found)
            return
        write_model_file(
            path,
            averaged,
            preset=found.preset,
            pattern=pattern,
            provenance=found.provenance,
        )

    return keep


def _network(
    preset: str, pattern: CFAPattern | None, init: str | Path | None
) -> tuple[nn.Module, CFAPattern]:
    if init is not None and holds_quantized(Path(init)):
        raise ModelError(
            f"expected a float network as --init, {init} is quantized: give the network that it "
            "was made from, with --weight-bits or --plan to fine-tune it"
        )
    if ":" in preset:
        found = load_own_model(preset, None if init is None else Path(init), frozen=False)
        if found.pattern is None:
            raise ModelError(
                f"expected a network with a CFAPattern as .pattern, {preset} has none: set it, for "
                "quantisp trains networks that restore mosaics"
            )
        if pattern is not None and pattern != found.pattern:
            raise ModelError(
                f"expected the CFA of {preset}, which is {found.pattern}, found {pattern}: "
                "leave out --cfa"
            )
        return found.model, found.pattern
    pattern = pattern or CFAPattern.named(DEFAULT_CFA)
    model = build_preset(preset, pattern)
    if init is not None:
        _begin_with(init, model, pattern)
    return model, pattern


def _begin_with(init: str | Path, model: nn.Module, pattern: CFAPattern) -> None:
    found = find_model(init)
    # Layers that meet the CFA have learned its phases, whatever their shape.
    anew: tuple[str, ...] = getattr(model, "cfa_layers", ()) if found.pattern != pattern else ()
    ours = model.state_dict()
    given = {
        name: value
        for name, value in found.model.state_dict().items()
        if name.rpartition(".")[0] not in anew
    }
    expected = {name for name in ours if name.rpartition(".")[0] not in anew}
    differing = [
        name
        for name in sorted(expected | given.keys())
        if name not in ours or name not in given or ours[name].shape != given[name].shape
    ]
    if differing:
        raise ModelError(
            f"expected a model of the same preset in --init, {found.name} differs at "
            f"{differing[0]}: choose another, or change --preset"
        )
    model.load_state_dict({**ours, **given})
    if anew:
        log.info(
            "%s is for %s: %s begin anew for %s",
            found.name,
            found.pattern,
            ", ".join(anew),
            pattern,
        )
