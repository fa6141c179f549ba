"""Rows of the table: each measured in a process of its own, and kept as it ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from quantisp.files import write_atomically

from .entries import FORMATS, Entry

# Lines of a toolkit's error that are kept; the first ones of a traceback are ours.
ERROR_LINES = 3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all rows of one folder have in common; two folders can be compared if these are equal.

    Args:
        model: as for ``quantisp.load_model``.
        images, calibration: files and folders.
        seed: of the crops and of the methods.
        threads: of the processor.
        iterations: for entries that learn, by name; others take their own default.
    """

    model: str
    images: tuple[str, ...]
    calibration: tuple[str, ...]
    seed: int
    threads: int
    iterations: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One method at one format."""

    entry: Entry
    format: str

    @property
    def name(self) -> str:
        """Also of its file."""
        return f"{self.entry.name}-{self.format}"


def rows_of(entries: Sequence[Entry], formats: Sequence[str]) -> list[Row]:
    """Every row, a format at a time, so that the table of one is complete early."""
    return [
        Row(entry=entry, format=format_name)
        for format_name in formats
        for entry in entries
        if format_name in entry.formats
    ]


def measure_row(row: Row, asked: Asked, path: Path, limit_minutes: float | None) -> dict[str, Any]:
    """Measure in a process of its own, so that a crash costs one row, and keep the record.

    What the toolkit prints goes into a log beside the record.

    Args:
        row: which.
        asked: on what.
        path: of the record.
        limit_minutes: after which the row is given up; None waits.
    """
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_measure_aside, args=(row, asked, path))
    path.unlink(missing_ok=True)
    process.start()
    try:
        process.join(None if limit_minutes is None else 60.0 * limit_minutes)
        if process.is_alive():
            write_record(path, _failed(row, f"given up after {limit_minutes:g} minutes"))
    finally:
        if process.is_alive():
            process.kill()
            process.join()
    if not path.exists():
        write_record(path, _failed(row, f"the process ended with code {process.exitcode}"))
    return read_record(path)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def _failed(row: Row, error: str) -> dict[str, Any]:
    return {**_head(row), "error": error}


def _head(row: Row) -> dict[str, Any]:
    return {
        "toolkit": row.entry.toolkit,
        "method": row.entry.method,
        "format": row.format,
        "versions": {package: _version(package) for package in row.entry.packages},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _measure_aside(row: Row, asked: Asked, path: Path) -> None:
    with path.with_suffix(".log").open("w") as log:
        # The descriptors themselves, for libraries that write by themselves.
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        _measure_and_write(row, asked, path)


def _measure_and_write(row: Row, asked: Asked, path: Path) -> None:
    try:
        record = _measure(row, asked)
    # A toolkit may raise anything, and the other rows are still to come.
    except Exception as error:  # noqa: BLE001
        lines = [line for line in str(error).splitlines() if line.strip()][:ERROR_LINES]
        record = _failed(row, " / ".join([type(error).__name__, *lines]))
        record["traceback"] = traceback.format_exc()
    write_record(path, record)


def _measure(row: Row, asked: Asked) -> dict[str, Any]:
    import torch

    from .bench import Bench
    from .measuring import grid_of, quality_of, with_weights

    torch.set_num_threads(asked.threads)
    weight_bits, activation_bits = FORMATS[row.format]
    bench = Bench.of(asked)
    recommended = row.entry.iterations.get(weight_bits, 0)
    iterations = asked.iterations.get(row.entry.name, recommended)
    task = bench.task(weight_bits, activation_bits, iterations)
    began, began_cpu = time.perf_counter(), time.process_time()
    outcome = row.entry.measure(task)
    minutes, cpu_minutes = (
        (time.perf_counter() - began) / 60.0,
        (time.process_time() - began_cpu) / 60.0,
    )
    bench.check_unchanged()
    grid = grid_of(task.network, outcome, weight_bits)
    network = outcome.network
    if network is None:
        network = with_weights(task.network, outcome.weights)
    quality = quality_of(network, task.network, bench.pictures)
    return {
        **_head(row),
        **quality.to_dict(),
        **asdict(grid),
        "minutes": minutes,
        "cpu_minutes": cpu_minutes,
        "share_of_iterations": iterations / recommended if recommended else 1.0,
        "settings": outcome.settings,
        "notes": dict(outcome.notes),
    }
