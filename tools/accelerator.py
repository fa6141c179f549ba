"""Train on a lent accelerator, in short calls, when nothing can be fetched there.

    python tools/accelerator.py pack --data TRAIN --validation VAL --out .accelerator
    python tools/accelerator.py measure --packed .accelerator
    python tools/accelerator.py train --packed .accelerator --run RUN --back OUT --total-minutes 8
    python tools/accelerator.py join OUT RUN

``pack`` copies the pictures into folders of at most 45 MB, each of which can travel alone. What
else is needed there: ``src``, ``tools``, and of the package's dependencies those that are not
there, such as gfloat and its own, as wheels. ``measure`` says how long a step takes, and how much
of the accelerator's rate of products in bfloat16 that is. ``train`` is the same command in every
call: it begins or goes on in RUN, with one schedule for ``--total-minutes`` over all calls, ends in
time, and leaves in OUT what fits through: the best weights in parts of 15 MB, the curve and the
log. ``join`` puts the parts together again, as a run that ``tools/pack_weights.py`` packages, or
from whose weights ``--init`` goes on.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from quantisp.api_training import train_model
from quantisp.api_training_pictures import decoded_tiles, tiles_on_device
from quantisp.cfa import parse_pattern
from quantisp.data import PatchCache, find_images
from quantisp.inference import find_device
from quantisp.models import build_preset
from quantisp.training import TrainProgress, TrainSettings
from quantisp.training.precision import keep_in_float32
from quantisp.training.run import TrainingRun
from quantisp.training.workers import Workers

SHARD_BYTES = 45_000_000
PART_BYTES = 15_000_000
WEIGHTS = "model.safetensors"
SMALL_FILES = ("training.json", "curve.csv")
# For each kind of network, so that a step keeps the accelerator busy.
BATCH = {"dephasenet-lite": 256, "dephasenet": 384}


class OutOfTime(Exception):  # noqa: N818
    """This call's minutes are over; the checkpoint is written."""


def pack(data: list[str], validation: list[str], out: Path) -> None:
    shards: list[list[Path]] = [[]]
    size = 0
    for file in find_images(data):
        here = file.path.stat().st_size
        if size + here > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(file.path)
        size += here
    folders = [(out / f"train-{number}", files) for number, files in enumerate(shards)]
    folders.append((out / "validation", [file.path for file in find_images(validation)]))
    for folder, files in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(files):
            shutil.copyfile(file, folder / f"{number:06d}-{file.name}")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}: {len(files)} pictures, {size / 1e6:.1f} MB")


def train(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    run: Path = arguments.run
    back: Path = arguments.back
    back.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(
        time_limit_s=60.0 * arguments.total_minutes,
        batch=arguments.batch or BATCH[arguments.preset],
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        checkpoint_every_s=40.0,
        # A step takes some milliseconds, a snapshot as long as two or three of them.
        snapshot_every=250,
    )

    def tell(progress: TrainProgress) -> None:
        best = max((point.psnr_db for point in progress.curve), default=float("nan"))
        print(
            f"step {progress.step}, {100 * progress.share:.1f}%, {progress.patches_per_s:.0f} "
            f"patches/s, loss {progress.loss:.5f}, best {best:.3f} dB",
            flush=True,
        )
        lines = [
            f"{point.step},{point.elapsed_s:.0f},{point.psnr_db:.4f}" for point in progress.curve
        ]
        (run / "curve.csv").write_text("\n".join(["step,elapsed_s,psnr_db", *lines, ""]))
        over = time.monotonic() - began > 60.0 * arguments.minutes
        # A call ends right after a checkpoint, so that nothing is done twice.
        written = (run / "checkpoint.pt").stat().st_mtime if (run / "checkpoint.pt").exists() else 0
        if over and time.time() - written < 5.0:
            raise OutOfTime

    try:
        train_model(
            preset=arguments.preset,
            pattern=parse_pattern(arguments.cfa),
            data=sorted(arguments.packed.glob("train-*")),
            validation=[arguments.packed / "validation"],
            out=run,
            settings=settings,
            command=shlex.join(["python", *sys.argv]),
            init=arguments.init,
            resume=(run / "checkpoint.pt").exists(),
            device=arguments.device,
            compiled=arguments.compile,
            on_progress=tell,
        )
        print("finished")
    except OutOfTime:
        print("to be continued by the same command")
    bring_back(run, back)


def measure(arguments: argparse.Namespace) -> None:
    device = find_device(arguments.device)
    pattern = parse_pattern(arguments.cfa)
    settings = TrainSettings(steps=10**6, batch=arguments.batch or BATCH[arguments.preset])
    files = find_images([arguments.packed / "train-0"])
    with tempfile.TemporaryDirectory() as scratch:
        workers = Workers(device)
        cache = Path(scratch) / "cache"
        tiles = decoded_tiles(files[: arguments.pictures], cache, settings, workers, None)
        patches = PatchCache(tiles_on_device(tiles, device))
        model = build_preset(arguments.preset, pattern)
        pixels = settings.batch * settings.patch_px**2
        operations = 3 * step_operations(model, settings.patch_px) * settings.batch
        peak = product_rate(device)
        print(f"products of large matrices in bfloat16: {peak / 1e12:.4g} TFLOP/s")
        ways = {"plain": False, "compiled": True}
        for name, compiled in ways.items():
            run = TrainingRun(
                copy.deepcopy(model),
                settings,
                pattern,
                Path(scratch) / "checkpoint.pt",
                workers,
                {},
                compiled=compiled,
            )
            began = time.perf_counter()
            with keep_in_float32(run.model, device):
                run.advance(patches)
                wait(device)
                first = time.perf_counter() - began
                times = [seconds_of(run, patches, arguments.steps) for _ in range(5)]
            step = sorted(times)[2]
            print(
                f"{name}: first step {first:.1f} s, then "
                f"{1e3 * step:.2f} ms, {pixels / step / 1e6:.4g} MPix/s, "
                f"{operations / step / 1e12:.4g} TFLOP/s, {100 * operations / step / peak:.1f}% of "
                "the products' rate",
                flush=True,
            )


def seconds_of(run: TrainingRun, patches: PatchCache, steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        run.advance(patches)
    wait(run.device)
    return (time.perf_counter() - began) / steps


def step_operations(model: nn.Module, patch_px: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, patch_px, patch_px))
    return counter.get_total_flops()


def product_rate(device: torch.device) -> float:
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    times: list[float] = []
    for _ in range(10):
        wait(device)
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        wait(device)
        times.append((time.perf_counter() - began) / 5)
    return 2 * size**3 / sorted(times)[5]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def bring_back(run: Path, back: Path) -> None:
    if (run / WEIGHTS).exists():
        content = (run / WEIGHTS).read_bytes()
        for number, first in enumerate(range(0, len(content), PART_BYTES)):
            (back / f"{WEIGHTS}.{number}").write_bytes(content[first : first + PART_BYTES])
    for name in SMALL_FILES:
        if (run / name).exists():
            shutil.copyfile(run / name, back / name)


def join(back: Path, run: Path) -> None:
    run.mkdir(parents=True, exist_ok=True)
    parts = sorted(back.glob(f"{WEIGHTS}.*"), key=lambda path: int(path.suffix[1:]))
    (run / WEIGHTS).write_bytes(b"".join(part.read_bytes() for part in parts))
    for name in SMALL_FILES:
        if (back / name).exists():
            shutil.copyfile(back / name, run / name)
    print(f"{run / WEIGHTS}: {len(parts)} parts")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--data", nargs="+", required=True)
    packing.add_argument("--validation", nargs="+", required=True)
    packing.add_argument("--out", type=Path, required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--pictures", type=int, default=32)
    measuring.add_argument("--steps", type=int, default=20)
    training = commands.add_parser("train")
    training.add_argument("--run", type=Path, required=True)
    training.add_argument("--back", type=Path, required=True)
    training.add_argument("--minutes", type=float, default=8.5, help="of this call")
    training.add_argument("--total-minutes", type=float, required=True, help="of all calls")
    training.add_argument("--init")
    training.add_argument("--learning-rate", type=float, default=2e-3)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--compile", action="store_true")
    for command in (measuring, training):
        command.add_argument("--packed", type=Path, required=True)
        command.add_argument("--preset", default="dephasenet")
        command.add_argument("--cfa", default="rgbw-kodak")
        command.add_argument("--batch", type=int)
        command.add_argument("--device", default="auto")
    joining = commands.add_parser("join")
    joining.add_argument("back", type=Path)
    joining.add_argument("run", type=Path)
    arguments = parser.parse_args()
    match arguments.command:
        case "pack":
            pack(arguments.data, arguments.validation, arguments.out)
        case "measure":
            measure(arguments)
        case "train":
            train(arguments)
        case _:
            join(arguments.back, arguments.run)


if __name__ == "__main__":
    main()
