"""What the examples share: patches of packaged photographs, and a minute of plain training."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

# Packaged with scikit-image, and others than those that a study looks at.
PHOTOGRAPHS = ("rocket.jpg", "motorcycle_left.png", "motorcycle_right.png", "hubble_deep_field.jpg")
PATCH_PX = 64


def arguments(description: str | None, out: str, steps: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of RGB pictures (default: packaged ones)")
    parser.add_argument("--out", type=Path, default=Path(out), help="weights, as safetensors")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=8)
    return parser.parse_args()


def patches(given: argparse.Namespace) -> Callable[[torch.Generator], Tensor]:
    """Draws batches of patches in [0, 1], (n, 3, 64, 64)."""
    if given.data is None:
        folder = Path(skimage.__file__).parent / "data"
        found = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]
    else:
        found = sorted(p for p in given.data.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    pictures = [torch.from_numpy(np.array(Image.open(p).convert("RGB"))) for p in found]
    pictures = [p.permute(2, 0, 1) for p in pictures if min(p.shape[:2]) >= PATCH_PX]
    if not pictures:
        raise SystemExit(f"expected pictures of at least {PATCH_PX} px in --data, found none")

    def draw(generator: torch.Generator) -> Tensor:
        batch: list[Tensor] = []
        for _ in range(given.batch):
            numbers = torch.randint(0, 2**31, (4,), generator=generator).tolist()
            picture = pictures[numbers[0] % len(pictures)]
            top = numbers[1] % (picture.shape[1] - PATCH_PX + 1)
            left = numbers[2] % (picture.shape[2] - PATCH_PX + 1)
            patch = picture[:, top : top + PATCH_PX, left : left + PATCH_PX]
            batch.append(torch.rot90(patch, numbers[3] % 4, (1, 2)))
        return torch.stack(batch).float() / 255.0

    return draw


def train(
    network: nn.Module,
    draw: Callable[[torch.Generator], Tensor],
    degrade: Callable[[Tensor, torch.Generator], Tensor],
    given: argparse.Namespace,
) -> None:
    """AdamW on the mean absolute error, the learning rate falling along a cosine."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.steps)
    network.train().to(memory_format=torch.channels_last)
    start, losses = time.monotonic(), []
    for step in range(1, given.steps + 1):
        truth = draw(generator)
        loss = functional.l1_loss(network(degrade(truth, generator)), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 100 == 0 or step == given.steps:
            recent = losses[-100:]
            error = sum(recent) / len(recent)
            print(f"step {step}: mean error {error:.4f}, {time.monotonic() - start:.0f} s")
    network.eval()


def save(network: nn.Module, path: Path) -> None:
    """The weights, for ``--weights``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    print(f"wrote {path}")
