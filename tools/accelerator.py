"""Train on a lent accelerator, in short calls, when nothing can be fetched there.

    python tools/accelerator.py pack --data TRAIN --validation VAL --out .accelerator
    python tools/accelerator.py train --packed .accelerator --run RUN --back OUT --total-minutes 27
    python tools/accelerator.py join OUT RUN

``pack`` copies the pictures into folders of at most 45 MB, each of which can travel alone, and says
what else is needed there. ``train`` is the same command in every call: it begins or goes on in RUN,
with one schedule for ``--total-minutes`` over all calls, ends in time, and leaves in OUT what fits
through: the best weights in parts of 15 MB, the curve and the log. ``join`` puts the parts together
again, as a run that ``tools/pack_weights.py`` packages, or from whose weights ``--init`` goes on.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from pathlib import Path

from quantisp.api_training import train_model
from quantisp.cfa import parse_pattern
from quantisp.data import find_images
from quantisp.training import TrainProgress, TrainSettings

SHARD_BYTES = 45_000_000
PART_BYTES = 15_000_000
WEIGHTS = "model.safetensors"
SMALL_FILES = ("training.json", "curve.csv")
# For each kind of network, so that a step keeps the accelerator busy.
BATCH = {"dephasenet-lite": 128, "dephasenet": 64}


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
        checkpoint_every_s=20.0,
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
    training = commands.add_parser("train")
    training.add_argument("--packed", type=Path, required=True)
    training.add_argument("--run", type=Path, required=True)
    training.add_argument("--back", type=Path, required=True)
    training.add_argument("--minutes", type=float, default=8.5, help="of this call")
    training.add_argument("--total-minutes", type=float, required=True, help="of all calls")
    training.add_argument("--preset", default="dephasenet")
    training.add_argument("--cfa", default="rgbw-kodak")
    training.add_argument("--init")
    training.add_argument("--batch", type=int)
    training.add_argument("--learning-rate", type=float, default=2e-3)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--device", default="auto")
    training.add_argument("--compile", action="store_true")
    joining = commands.add_parser("join")
    joining.add_argument("back", type=Path)
    joining.add_argument("run", type=Path)
    arguments = parser.parse_args()
    match arguments.command:
        case "pack":
            pack(arguments.data, arguments.validation, arguments.out)
        case "train":
            train(arguments)
        case _:
            join(arguments.back, arguments.run)


if __name__ == "__main__":
    main()
