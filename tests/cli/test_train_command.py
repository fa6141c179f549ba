"""``quantisp train``: what it says, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantisp.models import load_model_file

pytestmark = pytest.mark.unit

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(quantisp: Run) -> Run:
    return partial(quantisp, "train")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        samples = np.random.default_rng(seed).integers(0, 256, (136, 136, 3), np.uint8)
        Image.fromarray(samples).save(folder / f"{seed}.png")
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cfa", "RGXB"], "expected CFA letters among R G B W C M Y, found 'X'"),
        (["--cfa", "nothing"], "no CFA is called 'nothing'"),
        (["--white", "1,2"], "three numbers like 0.25,0.5,0.25"),
        (["--cfa", "bayer", "--white", "1,0,0"], "a CFA with W beside --white, found bayer"),
        (["--optimizer", "sgd"], "an optimizer of muon, adamw"),
        (["--domain", "log"], "a domain of srgb, linear, root"),
        (["--domain", "root", "--weight-bits", "8"], "mosaics in sRGB to fine-tune in integers"),
        (["--hdrplus", "raw"], "final"),
        (["--preset", "nothing"], "no preset is called 'nothing'"),
        (["--preset", "nowhere:nothing"], "cannot be imported"),
        (["--init", "nothing"], "no packaged model is called 'nothing'"),
        (["--devices", "0"], "at least 1 device"),
        (["--resume"], "start without --resume"),
        (["--steps", "0"], "steps must be above 0"),
        (["--last-phase", "2"], "a share from 0 to 1"),
        (["--qat", "float"], "give --init beside --qat float"),
        (["--qat", "float", "--weight-bits", "4"], "no widths beside --qat float"),
        (["--sum-bits", "12"], "expected --weight-bits or --plan beside --sum-bits"),
        (["--batch", "0"], "batch must be above 0"),
        (
            [
                "--qat",
                "incremental",
                "--compile",
                "--weight-bits",
                "4",
                "--init",
                "dephasenet-lite",
            ],
            "no --compile, for --qat incremental",
        ),
        (
            ["--last-phase", "0.5", "--weight-bits", "4", "--init", "dephasenet-lite"],
            "no --last-phase beside --qat incremental",
        ),
        (
            ["--precision", "bfloat16", "--weight-bits", "4", "--init", "dephasenet-lite"],
            "--precision auto or float32 beside --qat incremental",
        ),
        (["--activation-bits", "8"], "expected --weight-bits or --plan beside --activation-bits"),
    ],
)
def test_mistakes_get_one_line_and_nothing_is_written(
    train: Run, photos: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "run"
    code, shown, complaint = train("--data", photos, "--out", out, "--steps", "1", *options)
    assert (code, shown) == (2, "")
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("content", [None, b"nothing"])
def test_no_usable_pictures(
    train: Run, tmp_path: Path, photos: Path, content: bytes | None
) -> None:
    empty, out = tmp_path / "empty", tmp_path / "run"
    empty.mkdir()
    if content is not None:
        (empty / "broken.png").write_bytes(content)
    code, _, complaint = train("--data", empty, "--validation", photos, "--out", out)
    assert code == 2
    assert "expected pictures" in complaint.splitlines()[-1]
    assert not out.exists()


def test_a_run_for_a_cfa_of_ones_own(train: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--steps", "1", "--batch", "1", "--precision", "float32"]
    options += ["--cfa", "WR/GB", "--white", "0.25,0.5,0.25"]
    code, shown, _ = train("--data", photos, "--out", out, *options)
    assert code == 0
    assert shown.startswith("best on validation: ")
    model = load_model_file(out / "model.safetensors")
    assert model.pattern.tile == ("WR", "GB")
    assert model.pattern.response("W") == (0.25, 0.5, 0.25)
    code, _, complaint = train("--data", photos, "--out", out, *options)
    assert code == 2
    assert "pass --resume to go on" in complaint
