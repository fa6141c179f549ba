"""The page is one well-formed file that needs nothing else, whatever the names in it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_factory import make_crop

from quantisp.records import Crop, StudyResult
from quantisp.reports import psnr_figure, report_page

pytestmark = pytest.mark.unit

VOID = {"meta", "img", "br"}
RUN = {"command": "quantisp study --model '<a>'", "time": "3 s"}


class Outline(HTMLParser):
    """What a browser would see: balanced tags, references, text per tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.references += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"closed but never opened: {tag}"
        assert self.open[-1] == tag, f"{self.open[-1]} closed by {tag}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)


def test_the_page_is_balanced_and_self_contained(kodak: StudyResult, crop: Crop):
    page = report_page(kodak, [crop, crop], RUN)
    outline = Outline(page)
    assert outline.references
    assert all(reference.startswith("data:image/") for reference in outline.references)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert not {"script", "link", "iframe"} & set(outline.tags)
    assert outline.tags.count("img") == sum(name == "alt" for name, _ in outline.attributes) == 3
    assert outline.tags.count("h1") == outline.tags.count("main") == 1


def test_an_unbalanced_page_would_be_caught():
    """The twin."""
    for broken in ("<p><b>x</p></b>", "<p>x", "</p>"):
        with pytest.raises(AssertionError):
            Outline(broken)


def test_the_answer_comes_first(kodak: StudyResult, small: StudyResult, hostile: StudyResult):
    answer = re.search(r'<p class="answer">(.*)</p>', report_page(kodak, [], {}))
    assert answer is not None
    assert answer[1] == (
        "<strong>8 weight bits</strong> are enough to stay within 0.05 dB of float, with gptq, per "
        "channel. With rtn, per tensor it takes 9. The paper's network needed 10."
    )
    assert "<strong>8 weight bits</strong> (fewer were not studied)" in report_page(small, [], {})
    assert "even 6 bits are not within 0.05 dB" in report_page(hostile, [], {})


def test_the_table_holds_the_rows_and_the_paper_for_kodak_only(
    kodak: StudyResult, small: StudyResult
):
    page = report_page(kodak, [], {})
    assert '<th scope="row">9</th><td class="first">42.819</td><td>0.098</td>' in page
    assert page.count('class="chosen"') + page.count("first chosen") == 2 * 5
    own = report_page(small, [], {})
    assert "paper" not in own
    assert (
        '<tr><th scope="row">8</th><td class="first chosen">41.252</td>'
        '<td class="chosen">\N{MINUS SIGN}0.002</td>'
    ) in own
    assert '<td class="chosen">equal</td>' in own


def test_each_picture_is_listed_once_per_series(kodak: StudyResult):
    outline = Outline(report_page(kodak, [], {}))
    assert outline.text["th"].count("kodim07.png") == 2
    assert outline.tags.count("details") == 2


def test_no_name_becomes_markup(hostile: StudyResult):
    crop = make_crop('"><script>.png', labels=["<i>4 bits</i>"])
    page = report_page(hostile, [crop], RUN | {"<b>": "<img src=x>"})
    outline = Outline(page)
    assert not {"script", "b", "i"} & set(outline.tags)
    assert outline.tags.count("img") == 2
    assert "<b>&\"'.png" in "".join(outline.text["th"])
    assert "".join(outline.text["h1"]) == "How many bits does <script>alert(1)</script> need?"


def test_protocol_and_run_are_spelled_out(small: StudyResult):
    protocol = {"border_px": 0, "sizes": [1, 2], "tile": {"px": 128}}
    result = replace(small, protocol=protocol)
    outline = Outline(report_page(result, [], RUN))
    pairs = dict(zip(outline.text["dt"], outline.text["dd"], strict=True))
    assert pairs["border px"] == "0"
    assert pairs["sizes"] == "1, 2"
    assert pairs["tile"] == "px: 128"
    assert pairs["model SHA-256"] == small.model_sha256
    assert pairs["command"] == RUN["command"]


def test_the_figure_in_the_page_is_the_figure(small: StudyResult):
    data = base64.b64encode(psnr_figure(small, "svg")).decode()
    assert f'src="data:image/svg+xml;base64,{data}"' in report_page(small, [], {})


def test_equal_results_give_equal_pages(kodak: StudyResult, crop: Crop):
    assert report_page(kodak, [crop], RUN) == report_page(kodak, [crop], RUN)
