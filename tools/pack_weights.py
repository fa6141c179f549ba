"""Put a trained model into the package: python tools/pack_weights.py RUN/model.safetensors NAME.

The weights are rounded to float16, which halves the file; the packaged network is the one with
those weights, and computes in float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from quantisp.models import load_model_file, read_model_file, write_model_file
from quantisp.models.zoo import PACKAGED


def main(source: str, name: str) -> None:
    file = read_model_file(Path(source))
    model = load_model_file(source).model.to(torch.float16)
    PACKAGED.mkdir(exist_ok=True)
    target = PACKAGED / f"{name}.safetensors"
    write_model_file(
        target, model, preset=file.preset, pattern=file.pattern, provenance=file.provenance
    )
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/pack_weights.py RUN/model.safetensors NAME")
    main(*sys.argv[1:])
