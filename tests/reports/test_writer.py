"""The report's files, under names that any folder takes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from report_factory import make_crop

from quantisp.errors import OutputError
from quantisp.records import StudyResult
from quantisp.reports import crop_figure, psnr_figure, report_page, study_markdown, write_report

pytestmark = pytest.mark.unit


def test_it_writes_what_it_says(tmp_path: Path, small: StudyResult):
    crops = [make_crop("../é <b>.png", size_px=16), make_crop("日本.png", size_px=16)]
    folder = tmp_path / "out" / "study"
    written = write_report(folder, small, crops, {"time": "3 s"})
    assert [path.name for path in written] == [
        "report.html",
        "study.md",
        "psnr.svg",
        "psnr.png",
        "crop-b-png-12-34.png",
        "crop-png-12-34.png",
    ]
    assert sorted(folder.iterdir()) == sorted(written)
    assert [path.read_bytes() for path in written] == [
        report_page(small, crops, {"time": "3 s"}).encode(),
        study_markdown(small).encode(),
        psnr_figure(small, "svg"),
        psnr_figure(small, "png"),
        *map(crop_figure, crops),
    ]


def test_a_name_that_is_not_utf_8_is_written(tmp_path: Path, small: StudyResult):
    page, *_ = write_report(tmp_path, small, [make_crop("\udcff.png", size_px=16)], {})
    assert "?.png" in page.read_text(encoding="utf-8")


def test_a_full_disk_leaves_the_old_report(
    tmp_path: Path, small: StudyResult, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="free some space"):
        write_report(tmp_path, small, [], {})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("report.html", "old")
    ]


def test_a_file_in_the_folder_s_place_is_an_output_error(tmp_path: Path, small: StudyResult):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(tmp_path / "file" / "study", small, [], {})
