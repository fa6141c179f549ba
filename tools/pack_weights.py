"""Put a trained model into the package: python tools/pack_weights.py RUN NAME.

RUN is the folder of a finished run. The weights stay float32; the record of the training is
packaged beside them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from quantisp.models import load_model_file
from quantisp.models.zoo import PACKAGED
from quantisp.training import RECORD_NAME


def main(run: Path, name: str) -> None:
    source = run / "model.safetensors"
    load_model_file(source)
    target = PACKAGED / f"{name}.safetensors"
    shutil.copyfile(source, target)
    shutil.copyfile(run / RECORD_NAME, PACKAGED / f"{name}.{RECORD_NAME}")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/pack_weights.py RUN NAME")
    main(Path(sys.argv[1]), sys.argv[2])
