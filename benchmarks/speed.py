"""Speed, as ratios to rivals in the same run: python benchmarks/speed.py [--images FOLDER].

Medians over repetitions that take turns, so that a machine that slows down slows both sides.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from quantisp.api import find_model, study_with_crops
from quantisp.cfa import CFAPattern, mosaic
from quantisp.data import find_images, read_picture
from quantisp.inference import prepare, restore
from quantisp.metrics import ssim
from quantisp.models import build_preset

BITS = tuple(range(4, 17))


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def take_turns(repeats: int, *actions: Callable[[], object]) -> list[float]:
    """The median time of each action in seconds, after one round to warm up."""

    def rested(action: Callable[[], object]) -> float:
        # The other side's threads spin for a while after their work, and would take a core.
        time.sleep(0.2)
        return seconds(action)

    for action in actions:
        action()
    times = [[rested(action) for action in actions] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def show(what: str, ours: float, rival: float, target: str) -> None:
    print(f"{what:56} {ours:9.3f} s {rival:9.3f} s {ours / rival:7.3f}  {target}", flush=True)


def study_overhead(
    name: str, model: nn.Module, images: Sequence[str], bits: Sequence[int], target: str
) -> None:
    """The jobs of a study (float and each width), metrics included, against bare forward passes.

    What follows the table (finding places, cutting crops) takes as long for a thousand pictures as
    for one, and is shown by itself.
    """
    pattern = CFAPattern.named("rgbw-kodak")
    network = prepare(copy.deepcopy(model), torch.device("cpu"))
    mosaics = [mosaic(read_picture(f.path).tensor(), pattern) for f in find_images(list(images))]

    def bare() -> None:
        for samples in mosaics:
            restore(network, samples)

    bare()
    # Half of the bare passes before the study and half after it, for the machine may change speed.
    passes = 1 + len(bits)
    before = seconds(lambda: [bare() for _ in range(passes // 2)])
    finished: list[float] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        study_with_crops(
            model,
            images,
            weight_bits=bits,
            granularities=["tensor"],
            out=Path(folder) / "study",
            on_progress=lambda _: finished.append(time.perf_counter()),
        )
    ended = time.perf_counter()
    after = seconds(lambda: [bare() for _ in range(passes - passes // 2)])
    what = f"{name}: {passes} settings on {len(mosaics)} pictures / bare network"
    show(what, finished[-1] - began, before + after, target)
    print(f"{name + ': places and crops':56} {ended - finished[-1]:9.3f} s", flush=True)


def against_onnxruntime(model: str, samples: Tensor) -> None:
    """Our float32 forward pass against ONNX Runtime's of the same network and picture."""
    import onnxruntime

    found = find_model(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(found.model, (samples,), path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: samples.numpy()}
    network = prepare(found.model, torch.device("cpu"))
    difference = np.abs(session.run(None, feed)[0] - restore(network, samples).numpy()).max()
    if difference > 1e-4:
        sys.exit(f"ONNX Runtime computes something else: it differs by {difference}")
    ours, theirs = take_turns(9, lambda: restore(network, samples), lambda: session.run(None, feed))
    show("forward pass / ONNX Runtime, float32", ours, theirs, "below 1")


def layouts(model: str, samples: Tensor) -> None:
    """The layout that is used against the other one."""
    nchw: nn.Module = find_model(model).model.eval()
    ours = prepare(find_model(model).model, torch.device("cpu"))

    def plain() -> None:
        with torch.inference_mode():
            nchw(samples)

    used, other = take_turns(9, lambda: restore(ours, samples), plain)
    show("forward pass, channels_last / contiguous", used, other, "at most 1")


def against_torchmetrics(picture: Tensor) -> None:
    """Our SSIM against torchmetrics'."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    noisy = (picture + 0.01 * torch.randn_like(picture)).clamp(0.0, 1.0)
    ours, theirs = take_turns(
        9,
        lambda: ssim(noisy, picture),
        lambda: structural_similarity_index_measure(noisy, picture, data_range=1.0),
    )
    show("SSIM / torchmetrics", ours, theirs, "below 1")


def start_up() -> None:
    """``quantisp --help`` against an empty Python process."""
    ours, python = take_turns(
        7,
        lambda: subprocess.run(
            [sys.executable, "-m", "quantisp.cli.main", "--help"], stdout=subprocess.DEVNULL
        ),
        lambda: subprocess.run([sys.executable, "-c", "pass"], stdout=subprocess.DEVNULL),
    )
    show("quantisp --help / an empty Python", ours, python, "below 0.3 s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs="+", default=["sample"])
    parser.add_argument("--model", default="dephasenet-lite")
    arguments = parser.parse_args()
    picture = read_picture(find_images(["sample"])[0].path).tensor()
    samples = mosaic(picture, find_model(arguments.model).pattern)
    print(f"{'':56} {'ours':>11} {'rival':>11} {'ratio':>7}  target")
    start_up()
    against_torchmetrics(picture)
    layouts(arguments.model, samples)
    against_onnxruntime(arguments.model, samples)
    lite = find_model(arguments.model).model
    study_overhead(arguments.model, lite, arguments.images, BITS, "at most 1.25")
    torch.manual_seed(0)
    large = build_preset("dephasenet", CFAPattern.named("rgbw-kodak"))
    study_overhead("dephasenet, untrained", large, arguments.images, BITS, "at most 1.05")


if __name__ == "__main__":
    main()
