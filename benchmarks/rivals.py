"""quantisp against other toolkits for quantization: same network, same crops, same machine.

    python benchmarks/rivals.py --out DIR [--images …] [--calibration …] [--only NAME …]

Each method of each toolkit rounds the packaged network at W4, W6, W8 (weights alone, per output
channel) and W8A8. Weights are taken out of what the toolkit made, counted (an output channel must
lie on an even grid of at most 2^bits levels), put into the float network, and measured by the one
measure of a study; with quantized activations, the toolkit's own network is measured. Each row runs
in a process of its own and is kept in the folder, so that a command that was killed goes on, and a
toolkit that is missing or fails costs its own rows, which then say why; such rows are tried again.

The toolkits are no dependencies of quantisp. ``benchmarks/rivals-requirements.txt`` lists them, for
a virtual environment of their own; its first lines say how to make it. Minutes are those of the
processor, so that other work on the machine changes them less; the records have the clock's, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from dataclasses import asdict
from pathlib import Path

# The package beside this file, which is found before this file itself.
from rivals.entries import ENTRIES, FORMATS
from rivals.rows import Asked, measure_row, read_record, rows_of
from rivals.table import table

from quantisp.errors import QuantispError
from quantisp.files import make_folder, write_atomically


def main() -> None:
    arguments = _parser().parse_args()
    # So that a row's process does not outlive the command.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = Asked(
        model=arguments.model,
        images=tuple(arguments.images),
        calibration=tuple(arguments.calibration),
        seed=arguments.seed,
        threads=arguments.threads,
        iterations=dict(arguments.iterations),
    )
    out: Path = arguments.out
    try:
        _check(asked)
        make_folder(out / "rows")
    except QuantispError as error:
        sys.exit(str(error))
    _keep_asked(out, asked)
    entries = [entry for entry in ENTRIES if entry.name in arguments.only]
    rows = rows_of(entries, arguments.formats)
    for count, row in enumerate(rows, start=1):
        path = out / "rows" / f"{row.name}.json"
        kept = read_record(path) if path.exists() else {"error": "not measured"}
        if "error" in kept:
            print(f"{count} of {len(rows)}: {row.name}", file=sys.stderr, flush=True)
            kept = measure_row(row, asked, path, arguments.limit_minutes)
        print(_summary(row.name, kept), file=sys.stderr, flush=True)
    everything = [out / "rows" / f"{row.name}.json" for row in rows_of(ENTRIES, tuple(FORMATS))]
    text = table([read_record(path) for path in everything if path.exists()])
    write_atomically(out / "rivals.md", text.encode())
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--out", type=Path, required=True, help="a folder that keeps the rows")
    parser.add_argument("--model", default="dephasenet-lite", help="a DePhaseNet")
    parser.add_argument("--images", nargs="+", default=["sample"], help="to measure on")
    parser.add_argument(
        "--calibration", nargs="+", default=[], help="192 crops are cut; default: two packaged ones"
    )
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--iterations",
        nargs="+",
        type=_named_number,
        default=[],
        metavar="NAME=N",
        help="fewer than a toolkit's own for methods that learn: "
        + ", ".join(f"{e.name} ({e.iterations[4]})" for e in ENTRIES if e.iterations),
    )
    parser.add_argument("--limit-minutes", type=float, help="after which a row is given up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def _named_number(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in {entry.name for entry in ENTRIES if entry.iterations}:
        raise argparse.ArgumentTypeError(f"expected NAME=N of a method that learns, found {text!r}")
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return name, int(number)


def _check(asked: Asked) -> None:
    """Find out what is wrong with the input before any row."""
    from rivals.bench import Bench

    bench = Bench.of(asked)
    print(
        f"{len(bench.pictures)} pictures; {sum(map(len, bench.mosaics))} crops; the twin's outputs "
        f"differ from the network's by {bench.twin_error:.1e} of their size",
        file=sys.stderr,
    )


def _keep_asked(out: Path, asked: Asked) -> None:
    """One folder takes rows of one kind."""
    import torch

    path = out / "asked.json"
    wanted = json.loads(json.dumps(asdict(asked)))
    if path.exists() and json.loads(path.read_bytes())["asked"] != wanted:
        sys.exit(
            f"{out} holds rows that were asked for otherwise, see {path}: choose another --out"
        )
    found = {
        "asked": wanted,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())


def _summary(name: str, record: dict[str, object]) -> str:
    if "error" in record:
        return f"{name}: {record['error']}"
    return f"{name}: {record['psnr_db']:.3f} dB, {record['cpu_minutes']:.1f} minutes"


if __name__ == "__main__":
    main()
