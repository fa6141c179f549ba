"""The figures: the same bytes each time, and pixels that are the crop's own."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from report_factory import make_crop, make_row, make_study

from quantisp.records import Crop, StudyResult
from quantisp.reports import crop_figure, psnr_figure
from quantisp.reports.crops import ERROR_LIMIT, enlargement
from quantisp.reports.style import ImageFormat

pytestmark = pytest.mark.unit


def decoded(png: bytes):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("image_format", ["svg", "png"])
def test_equal_results_give_equal_bytes(kodak: StudyResult, image_format: ImageFormat):
    first = psnr_figure(kodak, image_format)
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "svg.hashsalt": "another"}):
        assert psnr_figure(kodak, image_format) == first
    assert b"Matplotlib" not in first
    assert b"<dc:date>" not in first


def test_other_results_give_other_bytes(kodak: StudyResult, small: StudyResult):
    assert psnr_figure(kodak, "svg") != psnr_figure(small, "svg")


def test_settings_of_the_caller_are_left_alone(small: StudyResult):
    before = dict(mpl.rcParams)
    psnr_figure(small, "svg")
    assert dict(mpl.rcParams) == before


def test_the_picture_for_a_readme_is_1200_px_wide(kodak: StudyResult):
    assert decoded(psnr_figure(kodak, "png")).shape == (750, 1200, 3)


def test_the_paper_is_drawn_for_kodak_only(kodak: StudyResult, small: StudyResult):
    grey = re.compile(rb"stroke: #8c959f")
    assert grey.search(psnr_figure(kodak, "svg"))
    assert not grey.search(psnr_figure(small, "svg"))


def test_awkward_numbers_and_names_are_drawn(small: StudyResult, hostile: StudyResult):
    row = make_row(8, "rtn", "tensor", 0.0, ["a"])
    equal = replace(row, psnr_db=math.inf, drop_db=math.nan)
    endless = make_study(names=["a"], rows=[equal, *hostile.rows], bits=(8, None))
    for result in (small, hostile, endless, make_study(names=[], rows=[], bits=())):
        svg = psnr_figure(result, "svg")
        assert b"nan" not in svg
        ET.fromstring(svg)


def test_a_gain_is_drawn_hollow_at_the_floor(small: StudyResult, hostile: StudyResult):
    hollow = re.compile(rb"fill: #ffffff; stroke: #0072b2")
    assert hollow.search(psnr_figure(small, "svg"))
    assert not hollow.search(psnr_figure(hostile, "svg"))


def test_many_series_make_the_figure_taller_not_fuller(kodak: StudyResult):
    rows = [make_row(4, f"method{index}", "tensor", 1.0, ["a"]) for index in range(13)]
    many = make_study(names=["a"], rows=rows, bits=(None,) * 13)
    assert decoded(psnr_figure(many, "png")).shape[0] > decoded(psnr_figure(kodak, "png")).shape[0]


@pytest.mark.parametrize("size_px", [20, 96, 128, 400])
def test_every_pixel_of_a_crop_becomes_a_square(size_px: int):
    crop = make_crop(size_px=size_px)
    png = crop_figure(crop)
    assert png == crop_figure(crop)
    factor = enlargement(crop)
    side, gap = size_px * factor, 12
    picture = decoded(png)
    top = picture.shape[0] - 2 * (side + gap)
    for column, pixels in enumerate([crop.truth, *(panel.rgb for panel in crop.panels)]):
        expected = np.frombuffer(pixels, np.uint8).reshape(size_px, size_px, 3)
        left = gap + column * (side + gap)
        shown = picture[top : top + side, left : left + side]
        for row in range(factor):
            assert np.array_equal(shown[row::factor, factor - 1 - row :: factor], expected)


def test_errors_share_one_scale(crop: Crop):
    maps = decoded(crop_figure(crop))[-(96 * 3 + 12) : -12]
    inferno = mpl.colormaps["inferno"](np.arange(ERROR_LIMIT + 1) / ERROR_LIMIT)[:, :3] * 255
    for column, panel in enumerate(crop.panels, start=1):
        steps = np.frombuffer(panel.error, np.uint8).reshape(96, 96)
        assert steps.max() > ERROR_LIMIT or column > 1
        left = 12 + column * (96 * 3 + 12)
        shown = maps[::3, left : left + 96 * 3 : 3]
        expected = inferno[np.minimum(steps, ERROR_LIMIT)]
        assert np.abs(shown - expected).max() <= 1


def test_enlargement():
    assert [enlargement(make_crop(size_px=px)) for px in (32, 96, 128, 600)] == [9, 3, 2, 1]


def test_a_label_with_markup_and_an_equal_crop_are_drawn():
    crop = make_crop("$x_{$.png", labels=["$\\frac{ rtn, per channel, 4 bits", "<b>"])
    equal = replace(crop.panels[0], psnr_db=math.inf)
    assert decoded(crop_figure(replace(crop, panels=(equal,)))).size
