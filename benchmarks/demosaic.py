"""Demosaicing: quality and speed of each method, and memory and speed of tiles.

    python benchmarks/demosaic.py methods --images DIR [--border 16]
    python benchmarks/demosaic.py tiles [--megapixels 2,12] [--only-tiled 50]

``methods`` prints the table of docs/results.md. ``tiles`` develops an RGBW-K DNG of each size in a
process of its own, in tiles and, unless the size is named in ``--only-tiled``, at once; the peak is
that of the whole process, Python and PyTorch included. Processor seconds are those of all threads,
reading and writing included, whatever else the machine does. ``--model`` may be the folder of an
integer network.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

METHODS = (
    ("bilinear", "rgbw-kodak"),
    ("linear", "rgbw-kodak"),
    ("residual", "rgbw-kodak"),
    ("dephasenet-lite", "rgbw-kodak"),
    ("bilinear", "bayer"),
    ("malvar", "bayer"),
    ("linear", "bayer"),
    ("menon", "bayer"),
    ("residual", "bayer"),
    ("dephasenet-lite-bayer", "bayer"),
)
SIDE_PX, ROUNDS = 768, 3
TILE_PX = 768


def methods(images: str, border: int) -> None:
    from quantisp.api import evaluate, find_model
    from quantisp.inference import network_cost, prepare, restore

    print("| method | CFA | PSNR dB | without a border | SSIM | kMAC/px | MPix/s |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, cfa in METHODS:
        found = find_model(name, pattern=cfa)
        try:
            cost = f"{network_cost(found.model).macs_per_px / 1e3:.3g}"
        # What is computed outside torch is not counted.
        except NotImplementedError:
            cost = "not counted"
        network = prepare(found.model, torch.device("cpu"))
        mosaic = torch.rand(1, 1, SIDE_PX, SIDE_PX)
        restore(network, mosaic)
        seconds: list[float] = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            restore(network, mosaic)
            seconds.append(time.perf_counter() - start)
        result = evaluate(name, images, pattern=cfa, border_px=border)
        print(
            f"| {name} | {cfa} | {result.psnr_db:.3f} | {result.psnr_cropped_db:.3f} | "
            f"{result.ssim:.4f} | {cost} | {mosaic.numel() / min(seconds) / 1e6:.3g} |",
            flush=True,
        )


def synthetic_dng(path: Path, megapixels: float) -> None:
    """A smooth scene with noise, 10 bits; made in bands, written as one DNG."""
    from quantisp.cfa import CFAPattern
    from quantisp.cfa.raw import write_dng
    from quantisp.cfa.raw_image import RawImage

    width = round((megapixels * 1e6 * 4 / 3) ** 0.5) // 4 * 4
    height = round(megapixels * 1e6 / width) // 4 * 4
    generator = np.random.default_rng(0)
    codes = np.empty((height, width), np.uint16)
    x = np.arange(width, dtype=np.float32) / 97
    for y in range(height):
        noise = generator.standard_normal(width, dtype=np.float32)
        codes[y] = 400 + 200 * np.sin(x + y / 61) + 5 * noise
    raw = RawImage(
        codes=codes,
        pattern=CFAPattern.named("rgbw-kodak"),
        black=(64.0,) * 16,
        white=1023.0,
        bits=10,
        as_shot_neutral=(0.5, 1.0, 0.7),
        color_matrix=np.array([[0.9, -0.2, -0.1], [-0.4, 1.3, 0.1], [0.0, 0.2, 0.6]]),
    )
    write_dng(path, raw)


def one(path: Path, model: str, tile: int) -> None:
    """Develop one file in this process; print pixels, seconds, processor seconds, peak in kB."""
    from quantisp.api_demosaic import DemosaicSettings, demosaic_files

    began = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        (made,) = demosaic_files(
            [path], Path(out), model=model, settings=DemosaicSettings(tile_px=tile)
        )
    busy = time.process_time() - began
    print(made.pixels, made.seconds, busy, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def tiles(model: str, sizes: list[float], only_tiled: list[float]) -> None:
    print("| MPix | tiles | MPix/s | MPix per processor second | peak MB |")
    print("|---:|---|---:|---:|---:|")
    for size in [*sizes, *only_tiled]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "synthetic.dng"
            synthetic_dng(path, size)
            for tile in (TILE_PX,) if size in only_tiled else (TILE_PX, 1 << 20):
                ran = subprocess.run(
                    [sys.executable, __file__, "one", str(path), model, str(tile)],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                pixels, seconds, busy, peak = map(float, ran.stdout.split())
                said = f"{tile} px" if tile == TILE_PX else "at once"
                rates = f"{pixels / seconds / 1e6:.3g} | {pixels / busy / 1e6:.3g}"
                print(f"| {pixels / 1e6:.1f} | {said} | {rates} | {peak / 1e3:.0f} |", flush=True)


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("methods")
    table.add_argument("--images", required=True)
    table.add_argument("--border", type=int, default=16)
    bounded = commands.add_parser("tiles")
    bounded.add_argument("--model", default="dephasenet-lite")
    bounded.add_argument("--megapixels", default="2,12")
    bounded.add_argument("--only-tiled", default="")
    single = commands.add_parser("one")
    single.add_argument("path", type=Path)
    single.add_argument("model")
    single.add_argument("tile", type=int)
    given = parser.parse_args()
    if given.command == "methods":
        methods(given.images, given.border)
    elif given.command == "tiles":
        tiles(given.model, numbers(given.megapixels), numbers(given.only_tiled))
    else:
        one(given.path, given.model, given.tile)
