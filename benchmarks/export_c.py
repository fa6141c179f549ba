"""The exported C program against the float32 network and the fast executor, in one run.

python benchmarks/export_c.py [--model dephasenet-lite] [--repeats 5]

All restore the same mosaic on one core, in turns, so that a machine that slows down slows all of
them; medians of the time that the processor worked, for machines are shared. A ratio above 1 is
faster than float32. The program is compiled with -O3 -march=native.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from integer import in_integers

from quantisp.api import find_model
from quantisp.cfa import mosaic
from quantisp.data import calibration_crops, default_calibration, find_images, read_picture
from quantisp.inference import prepare, restore
from quantisp.quantization import capture
from quantisp.quantization.export.c.program import Program as Exported
from quantisp.quantization.export.c.program import program_files

SETTINGS = ((8, 8, False), (8, 8, True), (10, 12, False), (16, 16, False))


class Program:
    """The exported network as a shared library."""

    def __init__(self, executor, x: torch.Tensor, folder: Path) -> None:
        network = executor.integers
        folder.mkdir()
        for name, text in program_files(Exported(network, "net"), "").items():
            (folder / name).write_text(text)
        library = folder / "net.so"
        flags = ["-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run(["gcc", *flags, "-o", library, folder / "net.c"], check=True)
        self.library = ctypes.CDLL(str(library))
        self.library.net_work_bytes.restype = ctypes.c_size_t
        first = network.graph.nodes[0].name
        self.size = [ctypes.c_size_t(size) for size in x.shape[2:]]
        self.input = executor.run(x, (first,))[first].numpy().astype(np.uint16)
        shape = [ctypes.c_size_t() for _ in range(3)]
        self.library.net_output_size(*self.size, *map(ctypes.byref, shape))
        channels, height, width = (size.value for size in shape)
        self.output = np.empty((height, width, channels), np.uint16)
        self.work = np.empty(self.library.net_work_bytes(*self.size), np.uint8)

    def __call__(self) -> np.ndarray:
        def pointer(array: np.ndarray) -> ctypes.c_void_p:
            return ctypes.c_void_p(array.ctypes.data)

        pointers = pointer(self.output), pointer(self.work)
        if self.library.net_run(pointer(self.input), *self.size, *pointers, None, None):
            raise SystemExit("the program failed")
        return self.output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="dephasenet-lite")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = find_model(arguments.model).model
    crops = calibration_crops(default_calibration()).batches[:2]
    calibration = [mosaic(crop[None], model.pattern) for batch in crops for crop in batch]
    x = mosaic(read_picture(find_images(["sample"])[0].path).tensor(), model.pattern)
    graph = capture(model, calibration[0])
    network = prepare(find_model(arguments.model).model, torch.device("cpu"))
    actions = {"float32": lambda: restore(network, x)}
    with tempfile.TemporaryDirectory() as folder:
        for weight_bits, bits, power in SETTINGS:
            name = f"W{weight_bits}A{bits}, {'powers of two' if power else 'multipliers'}"
            executor = in_integers(model, graph, calibration, (weight_bits, bits), power)
            program = Program(executor, x, Path(folder) / name.replace(" ", ""))
            output = executor.run(x, (graph.output,))[graph.output][0].permute(1, 2, 0).numpy()
            if not np.array_equal(program().astype(np.int32), output):
                raise SystemExit(f"{name}: the program gives something else")
            actions[f"{name}: executor"] = lambda executor=executor: executor(x)
            actions[f"{name}: C"] = program
        times = take_turns(arguments.repeats, list(actions.values()))
    pixels = x.shape[2] * x.shape[3] / 1e6
    print(f"{arguments.model}, {x.shape[2]}x{x.shape[3]} px, one core")
    print(f"{'':40} {'seconds':>9} {'MPix/s':>8} {'ratio':>7}")
    for name, seconds in zip(actions, times, strict=True):
        print(f"{name:40} {seconds:9.3f} {pixels / seconds:8.3f} {times[0] / seconds:7.2f}")


def take_turns(repeats: int, actions: list) -> list[float]:
    """The median processor time of each action in seconds, after one round to warm up."""
    rows: list[list[float]] = []
    for _ in range(repeats + 1):
        row: list[float] = []
        for action in actions:
            began = time.process_time()
            action()
            row.append(time.process_time() - began)
        rows.append(row)
    return [statistics.median(column) for column in zip(*rows[1:], strict=True)]


if __name__ == "__main__":
    main()
