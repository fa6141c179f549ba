"""What each part of DePhaseNet is worth, by trials of equal time on validation pictures.

    python benchmarks/ablation.py --data DIR --validation DIR --out DIR [--minutes 6] [--only NAME]

Every variant is trained on one thread, from the same seed, for the steps that it takes in so many
minutes of processor time. The machine may be shared, so the clock on the wall would be unfair: a
variant's steps a second are measured in this process's own CPU time, by a few short runs of the
very loop, whose set-up and validation are subtracted; a trial is then a run by steps. Validations
take no part in the minutes. A variant that costs less a step takes more steps.

A trial that was killed goes on from its checkpoint (at most ``checkpoint_every_s`` old) with the
number of steps that was found in the beginning; one that is finished is skipped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantisp.cfa import CFAPattern
from quantisp.data import PatchCache, TileSet, decode_tiles, find_images, open_tiles, read_picture
from quantisp.files import make_folder, write_atomically
from quantisp.inference import network_cost
from quantisp.models import PRESETS, DePhaseNet, DePhaseNetConfig
from quantisp.training import TrainSettings, train

PATTERN = CFAPattern.named("rgbw-kodak")
BASE = PRESETS["dephasenet-lite"]
# Steps of the short runs, and how often each is done.
SHORT, LONG, ROUNDS = 2, 10, 3
# A trial is too short for the usual 500.
WARM_UP = 0.05
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table.

    Args:
        name: as given to ``--only``.
        config: the network.
        changes: to the settings of training.
    """

    name: str
    config: DePhaseNetConfig = BASE
    changes: Mapping[str, float | str] = field(default_factory=dict[str, float | str])


def sized(
    fine_channels: int, fine_blocks: int, coarse_channels: int, coarse_blocks: int
) -> DePhaseNetConfig:
    return replace(
        BASE,
        fine_channels=fine_channels,
        fine_blocks=fine_blocks,
        coarse_channels=coarse_channels,
        coarse_blocks=coarse_blocks,
    )


# Each costs at most 0.15 MMAC/px, as the preset does.
VARIANTS = (
    Variant(name="base"),
    Variant(name="coarse-only", config=replace(BASE, phases="coarse")),
    Variant(
        name="fine-only", config=replace(BASE, phases="fine", fine_channels=56, fine_blocks=10)
    ),
    Variant(name="no-attention", config=replace(BASE, attention=False)),
    Variant(name="no-skip", config=replace(BASE, skip=False)),
    Variant(name="no-frequency", changes={"frequency_weight": 0.0}),
    Variant(name="no-mining", changes={"detail_power": 0.0}),
    Variant(name="jitter", changes={"exposure_jitter": 0.3, "colour_jitter": 0.1}),
    Variant(name="small-patches-late", changes={"last_patch_px": 64}),
    Variant(name="adamw", changes={"optimizer": "adamw", "learning_rate": 1.2e-3}),
    Variant(name="fold-branches", config=replace(BASE, fold_branches=True)),
    Variant(name="white-first", config=replace(BASE, white_first=True)),
    Variant(name="wide-quarter", config=sized(32, 2, 128, 7)),
    Variant(name="wide-half", config=sized(48, 8, 64, 12)),
    Variant(name="shallow-wide", config=sized(44, 5, 128, 5)),
    Variant(name="deep-narrow", config=sized(24, 14, 72, 18)),
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What every trial is trained and validated on."""

    tiles: TileSet
    validation: Sequence[Tensor]

    def patches(self, settings: TrainSettings) -> PatchCache:
        return PatchCache(
            self.tiles,
            detail_power=settings.detail_power,
            exposure_jitter=settings.exposure_jitter,
            colour_jitter=settings.colour_jitter,
        )


def built(variant: Variant, seed: int) -> DePhaseNet:
    torch.manual_seed(seed)
    return DePhaseNet(variant.config, PATTERN)


def settings_of(variant: Variant, steps: int, seed: int) -> TrainSettings:
    settings = TrainSettings(
        seed=seed,
        steps=steps,
        warmup_steps=round(WARM_UP * steps),
        # At the end alone: what counts is the same number of steps' worth of time.
        validate_every=steps,
    )
    changed: dict[str, Any] = dict(variant.changes)
    return replace(settings, **changed)


def seconds_a_step(variant: Variant, pictures: Pictures, seed: int) -> float:
    """CPU seconds of this process for one step, both phases in their shares."""

    def short_run(steps: int) -> float:
        settings = settings_of(variant, steps, seed)
        model, patches = built(variant, seed), pictures.patches(settings)
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            small = [pictures.validation[0][:, :, :64, :64]]
            train(model, patches, small, settings, pattern=PATTERN, folder=Path(folder))
            return time.process_time() - began

    short_run(SHORT)
    rounds = [short_run(LONG) - short_run(SHORT) for _ in range(ROUNDS)]
    return statistics.median(rounds) / (LONG - SHORT)


def plan(
    variant: Variant, pictures: Pictures, minutes: float, folder: Path, seed: int
) -> dict[str, Any]:
    """How many steps a trial takes; measured once, then read again."""
    path = folder / "plan.json"
    asked = {"minutes": minutes, "seed": seed, "config": asdict(variant.config)}
    asked["changes"] = dict(variant.changes)
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["asked"] != asked:
            sys.exit(f"{folder} holds another trial of {variant.name}: choose another --out")
        return found
    pace = seconds_a_step(variant, pictures, seed)
    steps = max(round(60.0 * minutes / pace), 1)
    found = {"asked": asked, "cpu_s_per_step": pace, "steps": steps}
    write_atomically(path, json.dumps(found, indent=1).encode())
    return found


def trial(variant: Variant, pictures: Pictures, minutes: float, out: Path, seed: int) -> None:
    """Train one variant, or what is left of it, and write its record."""
    folder = out / variant.name
    make_folder(folder)
    planned = plan(variant, pictures, minutes, folder, seed)
    if (folder / "record.json").exists():
        return
    settings = settings_of(variant, planned["steps"], seed)
    model = built(variant, seed)
    cost = network_cost(model)
    print(f"{variant.name}: {settings.steps} steps", file=sys.stderr, flush=True)
    curve = train(
        model,
        pictures.patches(settings),
        pictures.validation,
        settings,
        pattern=PATTERN,
        folder=folder,
        resume=(folder / CHECKPOINT).exists(),
    )
    record = {
        "variant": variant.name,
        "kmac_per_px": cost.macs_per_px / 1e3,
        "parameters": cost.parameters,
        "steps": planned["steps"],
        "minutes": minutes,
        "patches_per_s": settings.batch / planned["cpu_s_per_step"],
        "settings": asdict(settings),
        "config": asdict(variant.config),
        "pictures": pictures.tiles.sha256(),
        "curve": [asdict(point) for point in curve],
    }
    write_atomically(folder / "record.json", json.dumps(record, indent=1).encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The last validation of each finished trial, and its difference to that of the base."""
    psnr_db = {record["variant"]: record["curve"][-1]["psnr_db"] for record in records}
    lines = ["| variant | kMAC/px | steps | validation dB | to base |", "|---|--:|--:|--:|--:|"]
    for record in records:
        name = record["variant"]
        gain = f"{psnr_db[name] - psnr_db['base']:+.3f}" if "base" in psnr_db else ""
        lines.append(
            f"| {name} | {record['kmac_per_px']:.1f} | {record['steps']} "
            f"| {psnr_db[name]:.3f} | {gain} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--validation", nargs="+", required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = arguments.out
    files, held_out = find_images(arguments.data), find_images(arguments.validation)
    if {f.path.resolve() for f in files} & {f.path.resolve() for f in held_out}:
        sys.exit("expected other pictures in --validation than in --data")
    decode_tiles(files, out / "pictures", at_least_px=TrainSettings(steps=1).last_patch_px)
    validation = [read_picture(file.path).tensor() for file in held_out]
    pictures = Pictures(tiles=open_tiles(out / "pictures"), validation=validation)
    for variant in VARIANTS:
        if variant.name in arguments.only:
            trial(variant, pictures, arguments.minutes, out, arguments.seed)
    finished = [out / name / "record.json" for name in names]
    print(table([json.loads(path.read_bytes()) for path in finished if path.exists()]))


if __name__ == "__main__":
    main()
