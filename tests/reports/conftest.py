"""Studies, evaluations and crops that every test of the reports looks at."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from report_factory import make_crop, make_row, make_study

from quantisp.records import Crop, EvaluationResult, ImageQuality, StudyResult

SERIES = (("rtn", "tensor", 9.6), ("gptq", "channel", 2.1))


@pytest.fixture(scope="session")
def kodak() -> StudyResult:
    """13 widths x 2 settings x 24 pictures; the drop shrinks 3.3 times a bit, then turns."""
    names = [f"kodim{number:02}.png" for number in range(1, 25)]
    rows = [
        make_row(bits, method, granularity, round(worst * 3.3 ** (4 - bits) - 2e-5, 6), names)
        for method, granularity, worst in SERIES
        for bits in range(4, 17)
    ]
    return make_study(names=names, rows=rows, bits=(9, 8), image_set="kodak")


@pytest.fixture(scope="session")
def small() -> StudyResult:
    """One picture, one width, nothing lost: no PSNR to float, and a gain instead of a drop."""
    row = make_row(8, "rtn", "tensor", -0.002, ["only.png"])
    equal = replace(row, psnr_to_float_db=None)
    return make_study(names=["only.png"], rows=[equal], bits=(8,))


@pytest.fixture(scope="session")
def hostile() -> StudyResult:
    """Names that are markup to HTML, rich, matplotlib and Markdown; no width is enough."""
    names = ["<b>&\"'.png", "[red]|$x$_*.png"]
    rows = [make_row(bits, "<i>|$m$", "tensor", 3.0 - 0.1 * bits, names) for bits in (4, 6)]
    return make_study(names=names, rows=rows, bits=(None,), model="<script>alert(1)</script>")


@pytest.fixture(scope="session")
def evaluation() -> EvaluationResult:
    qualities = (
        ImageQuality(psnr_db=40.0, psnr_cropped_db=40.5, ssim=0.98),
        ImageQuality(psnr_db=math.inf, psnr_cropped_db=math.inf, ssim=1.0),
    )
    return EvaluationResult(
        model="dephasenet-lite",
        model_sha256="0f" * 32,
        cfa="rgbw-kodak",
        degradation="mosaic",
        border_px=10,
        psnr_db=math.inf,
        psnr_cropped_db=math.inf,
        ssim=0.99,
        images=dict(zip(("[bold]a.png", "b.png"), qualities, strict=True)),
    )


@pytest.fixture(scope="session")
def crop() -> Crop:
    return make_crop()
