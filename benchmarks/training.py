"""The training step against its bare convolutions, and the data side against the step.

    python benchmarks/training.py --data DIR [--preset dephasenet-lite] [--device auto]

The rival is what no training of this network can do without: the forward and backward passes of
its convolutions, each on its own, in the step's shapes and number format, with nothing between.
On an accelerator the share of its peak is shown, too (``--peak-tflops``: dense bfloat16).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantisp.cfa import CFAPattern
from quantisp.data import PatchCache, decode_tiles, find_images, open_tiles
from quantisp.inference import find_device, keep_freed_memory, network_cost
from quantisp.models import build_preset
from quantisp.training import TrainingRun, TrainSettings, Workers
from quantisp.training.precision import keep_in_float32

ROUNDS = 7


def convolutions(
    model: nn.Module, mosaic: Tensor, dtype: torch.dtype
) -> list[Callable[[], object]]:
    """Forward and backward of each convolution, as it occurs in one forward pass."""
    found: list[Callable[[], object]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(layer, nn.Conv2d):
            return
        kind = torch.float32 if layer is getattr(model, "skip", None) else dtype
        x = torch.rand_like(inputs[0], dtype=kind).contiguous(memory_format=torch.channels_last)
        weight, bias = (
            value.detach().to(kind).contiguous() for value in (layer.weight, layer.bias)
        )
        weight = weight.contiguous(memory_format=torch.channels_last)
        operands = [value.requires_grad_() for value in (x, weight, bias)]
        gradient = torch.rand_like(output, dtype=kind)
        gradient = gradient.contiguous(memory_format=torch.channels_last)

        def run() -> None:
            made = functional.conv2d(*operands, padding=layer.padding)
            torch.autograd.grad(made, operands, gradient)

        found.append(run)

    hooks = [m.register_forward_hook(note) for m in model.modules()]
    with torch.no_grad():
        model(mosaic)
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["sample"])
    parser.add_argument("--preset", default="dephasenet-lite")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak-tflops", type=float)
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    keep_freed_memory()
    torch.manual_seed(0)
    pattern = CFAPattern.named("rgbw-kodak")
    model = build_preset(arguments.preset, pattern)
    settings = TrainSettings(steps=10**6, batch=arguments.batch)
    with tempfile.TemporaryDirectory() as folder:
        decode_tiles(find_images(arguments.data), Path(folder), at_least_px=settings.patch_px)
        tiles = open_tiles(Path(folder)).to(device)
        run = TrainingRun(
            model,
            settings,
            pattern,
            Path(folder) / "checkpoint.pt",
            Workers(device),
            {},
            compiled=arguments.compile,
        )
        patches = PatchCache(tiles)
        with keep_in_float32(model, device):
            measure(run, patches, arguments.peak_tflops)


def measure(run: TrainingRun, patches: PatchCache, peak_tflops: float | None) -> None:
    settings, device = run.settings, run.device
    asked = {"seed": 0, "size": settings.batch, "patch_px": settings.patch_px}
    dtype = torch.bfloat16 if run.precision == "bfloat16" else torch.float32
    rgb = patches.batch(step=0, **asked)
    bare = convolutions(run.model, rgb[:, :1].to(device), dtype)

    def seconds(action: Callable[[], object]) -> float:
        wait(device)
        began = time.perf_counter()
        action()
        wait(device)
        return time.perf_counter() - began

    rounds = [
        (
            seconds(lambda: run.advance(patches)),
            seconds(lambda: [conv() for conv in bare]),
            seconds(lambda: patches.batch(step=run.step, **asked)),
        )
        for _ in range(ROUNDS + 1)
    ][1:]
    step, convs, data = (statistics.median(column) for column in zip(*rounds, strict=True))
    pixels = settings.batch * settings.patch_px**2
    flops = 6.0 * network_cost(run.model).macs_per_px * pixels
    print(f"{device}, {run.precision}, {settings.batch} patches of {settings.patch_px} px")
    print(
        f"training step                {1e3 * step:9.2f} ms  {settings.batch / step:9.1f} patches/s"
    )
    print(f"its bare convolutions        {1e3 * convs:9.2f} ms  {convs / step:9.3f} of the step")
    print(f"making the patches           {1e3 * data:9.2f} ms  {data / step:9.3f} of the step")
    print(f"arithmetic                   {flops / step / 1e12:9.3f} TFLOP/s")
    if peak_tflops is not None:
        print(f"share of the peak            {flops / step / 1e12 / peak_tflops:9.3f}")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
