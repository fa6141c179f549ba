"""Fuzz one reader of raw files: `python tools/fuzz_raw.py dng -max_total_time=60 [corpus/]`.

Needs atheris (`pip install atheris`). The first argument is an ending: dng, tif, npy, png, bin,
raw, json (a sidecar) or nef (through LibRaw, whose own code is not instrumented). What follows goes
to libFuzzer. A file ends in a picture or in one of quantisp's errors of one line; anything else, a
hang or more memory than -rss_limit_mb is a finding.
"""

from __future__ import annotations

import logging
import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["quantisp.cfa.raw", "tifffile"]):
    import numpy as np
    import tifffile  # noqa: F401

    from quantisp.cfa import CFAPattern
    from quantisp.cfa.raw import RawOptions, read_raw, write_dng, write_headless, write_raw
    from quantisp.cfa.raw.sidecar import sidecar_path
    from quantisp.cfa.raw_image import RawImage
    from quantisp.errors import InputError

# Far above what 40 px need, far below what a header can promise.
MOST_MEMORY_BYTES = 8 << 30
HEADLESS = RawOptions(
    width=8, height=5, packing="raw10", stride=11, pattern=CFAPattern.named("bayer")
)


def seed_file(path: Path) -> bytes:
    """A whole, small file of the ending."""
    # LibRaw takes nothing that is smaller.
    size = (48, 60) if path.suffix == ".nef" else (5, 8)
    codes = np.resize(np.arange(40, dtype=np.uint16) * 25, size)
    raw = RawImage(
        codes=codes,
        pattern=CFAPattern.named("bayer"),
        black=(64.0,) * 4,
        white=1023.0,
        bits=10,
        as_shot_neutral=(0.5, 1.0, 0.625),
        color_matrix=np.eye(3),
        noise_profile=((1e-4, 1e-6),),
    )
    if path.suffix in (".raw", ".json"):
        write_headless(path.with_suffix(".raw"), raw, packing="raw10", stride=11)
        return (
            path if path.suffix == ".raw" else sidecar_path(path.with_suffix(".raw"))
        ).read_bytes()
    if path.suffix == ".nef":
        write_dng(path, raw)
    else:
        write_raw(path, raw)
    return path.read_bytes()


def main() -> None:
    """Fuzz until libFuzzer ends it."""
    ending = sys.argv.pop(1)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "whole").write_bytes(seed_file(folder / f"seed.{ending}"))
    path = folder / ("fuzz.raw" if ending == "json" else f"fuzz.{ending}")
    sidecar_path(path).write_text('{"quantisp_raw": 1, "pattern": "RGGB"}')
    options = HEADLESS if ending == "raw" else RawOptions()
    if ending in ("json", "raw"):
        path.write_bytes((folder / "seed.raw").read_bytes())
        sidecar_path(path).unlink()

    def read(data: bytes) -> None:
        (sidecar_path(path) if ending == "json" else path).write_bytes(data)
        try:
            raw = read_raw(path, options)
            raw.codes.sum()
        except InputError as error:
            if "\n" in str(error):
                raise

    atheris.Setup([*sys.argv, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
