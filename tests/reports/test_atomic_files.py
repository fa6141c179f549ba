"""A file is written whole, or what was there stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from quantisp.errors import OutputError
from quantisp.files import write_atomically

pytestmark = pytest.mark.unit


def fail_with(code: int):
    def fail(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_it_writes_and_replaces_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "result.json"
    for content in (b"first", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_longest_name_a_folder_takes_is_written(tmp_path: Path):
    path = tmp_path / ("x" * 255)
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize(
    ("code", "cure"), [(errno.ENOSPC, "free some space"), (errno.EIO, ": choose another place")]
)
def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cure: str
):
    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", fail_with(code))
    with pytest.raises(OutputError, match=cure) as caught:
        write_atomically(path, b"new")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_plain_write_would_not_have_passed(tmp_path: Path):
    """The twin: opening the file itself loses the old content before anything can fail."""
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), path.open("wb"):
        raise RuntimeError
    assert path.read_bytes() != b"old"


def test_places_that_cannot_be_written_are_output_errors(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot write"):
            write_atomically(path, b"content")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
