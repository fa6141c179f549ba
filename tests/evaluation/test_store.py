from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from study_kit import measurement

from quantisp.errors import OutputError
from quantisp.evaluation import JobStore, Measurement, job_key
from quantisp.evaluation import store as store_module

pytestmark = pytest.mark.unit
STUDY: dict[str, Any] = {"model": "m" * 64, "pictures": ["p", "q"], "tolerance": 0.05}
JOBS = {f"job {i}": measurement(1 / 3 / (i + 1)) for i in range(3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study with three jobs done."""
    with JobStore(tmp_path / "study", STUDY) as store:
        for key, outcome in JOBS.items():
            store.put(key, outcome)
    return tmp_path / "study"


def jobs_in(folder: Path) -> dict[str, Measurement]:
    with JobStore(folder, STUDY) as store:
        found = {key: store.get(key) for key in [*JOBS, "late"]}
    return {key: outcome for key, outcome in found.items() if outcome is not None}


def test_put_get_and_reopen(folder: Path) -> None:
    assert jobs_in(folder) == JOBS
    with JobStore(folder, STUDY) as store:
        assert store.get("late") is None
        store.put("late", measurement(0.5))
        assert store.get("late") == measurement(0.5)
    assert jobs_in(folder) == {**JOBS, "late": measurement(0.5)}
    assert os.listdir(folder) == ["jobs.jsonl"]


def test_a_folder_may_be_deep_new_or_empty(tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "b" / "c", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
        with JobStore(path, STUDY):
            pass
        assert JobStore.check(path, STUDY)


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    assert not JobStore.check(tmp_path / "study", STUDY)
    assert os.listdir(tmp_path) == []


def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(folder: Path) -> None:
    path = folder / "jobs.jsonl"
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    without_last = {key: JOBS[key] for key in list(JOBS)[:-1]}
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert jobs_in(folder) == without_last
        assert path.read_bytes() == whole[:last]
    # A job that is put after the repair stands on a line of its own.
    path.write_bytes(whole[:-1])
    with JobStore(folder, STUDY) as store:
        store.put("job 2", JOBS["job 2"])
    assert path.read_bytes() == whole
    assert jobs_in(folder) == JOBS


def test_a_torn_first_line_begins_the_study_again(folder: Path) -> None:
    path = folder / "jobs.jsonl"
    header = path.read_bytes().splitlines(keepends=True)[0]
    for length in (0, 1, len(header) // 2, len(header) - 1):
        path.write_bytes(header[:length])
        assert jobs_in(folder) == {}
        assert path.read_bytes() == header


@pytest.mark.parametrize(
    "damage",
    [
        b"{}\n",
        b"not json\n",
        b"[1]\n",
        b'"text"\n',
        b"7\n",
        b'{"job": "x", "mse": "a"}\n',
        b"\xff\n",
    ],
)
def test_a_damaged_line_in_the_middle_is_refused(folder: Path, damage: bytes) -> None:
    path = folder / "jobs.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:2], damage, *lines[2:]])
    path.write_bytes(damaged)
    with pytest.raises(OutputError, match=r"line 3 of .*damaged"):
        JobStore(folder, STUDY)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"model": "n" * 64}, r"not the same model\):"),
        ({"pictures": ["p"]}, r"not the same pictures\):"),
        ({"model": "x", "tolerance": 0.1}, r"not the same model and tolerance\):"),
        ({"new": 1}, r"not the same new\):"),
    ],
)
def test_another_study_is_refused_by_what_differs(
    folder: Path, changes: dict[str, Any], names: str
) -> None:
    before = (folder / "jobs.jsonl").read_bytes()
    for attempt in (JobStore, JobStore.check):
        with pytest.raises(OutputError, match=names):
            attempt(folder, {**STUDY, **changes})
    assert (folder / "jobs.jsonl").read_bytes() == before


def test_a_tuple_in_the_study_is_the_list_that_was_written(folder: Path) -> None:
    assert JobStore.check(folder, {**STUDY, "pictures": ("p", "q")})


def test_something_else_in_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt: choose another --out"):
        JobStore(tmp_path, STUDY)
    assert os.listdir(tmp_path) == ["notes.txt"]
    with pytest.raises(OutputError, match="found a file"):
        JobStore(tmp_path / "notes.txt", STUDY)
    with pytest.raises(OutputError, match="cannot write"):
        JobStore(tmp_path / "notes.txt" / "below", STUDY)


@pytest.mark.parametrize(
    "content",
    [b"{}\n", b"hello\n", b"[]\n", b'{"study": 3}\n', b'{"study": null}\n', b"\xff\xfe\n"],
)
def test_a_file_of_the_same_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(content)
    with pytest.raises(OutputError, match="does not begin like one"):
        JobStore(tmp_path, STUDY)
    assert (tmp_path / "jobs.jsonl").read_bytes() == content


def test_a_second_opener_is_refused_and_cuts_nothing_off(folder: Path) -> None:
    with JobStore(folder, STUDY) as store:
        with pytest.raises(OutputError, match="another run is writing"):
            JobStore(folder, STUDY)
        store.put("late", measurement(0.5))
    assert jobs_in(folder) == {**JOBS, "late": measurement(0.5)}


def test_two_that_begin_at_once_do_not_harm_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found the folder empty; the other one is the first to open it."""
    first: list[JobStore] = []
    check = JobStore.check

    def overtaken(folder: Path, study: dict[str, Any]) -> bool:
        found = check(folder, study)
        if not first:
            monkeypatch.setattr(JobStore, "check", staticmethod(check))
            first.append(JobStore(folder, study))
            first[0].put("job 0", JOBS["job 0"])
        return found

    monkeypatch.setattr(JobStore, "check", staticmethod(overtaken))
    with pytest.raises(OutputError, match="another run is writing"):
        JobStore(tmp_path / "study", STUDY)
    first[0].close()
    assert jobs_in(tmp_path / "study") == {"job 0": JOBS["job 0"]}


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """The kernel writes up to ``size`` bytes and then fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk_leaves_the_earlier_jobs_whole(folder: Path, room: int) -> None:
    before = (folder / "jobs.jsonl").read_bytes()
    with JobStore(folder, STUDY) as store:
        with (
            no_file_over(len(before) + room),
            pytest.raises(OutputError, match="free some space, or choose another"),
        ):
            store.put("late", measurement(0.5))
        assert store.get("late") is None
        assert (folder / "jobs.jsonl").read_bytes() == before
        # There is room again.
        store.put("late", measurement(0.25))
    assert jobs_in(folder) == {**JOBS, "late": measurement(0.25)}


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path) -> None:
    with no_file_over(10), pytest.raises(OutputError, match="free some space"):
        JobStore(tmp_path / "study", STUDY)
    assert jobs_in(tmp_path / "study") == {}


def test_a_write_in_pieces_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw write may take less than it was given."""

    class Slow(store_module.io.FileIO):
        def write(self, data: Any, /) -> int:
            return super().write(bytes(data)[:7])

    monkeypatch.setattr(store_module.io, "FileIO", Slow)
    with JobStore(folder, STUDY) as store:
        store.put("late", measurement(0.5))
    monkeypatch.undo()
    assert jobs_in(folder) == {**JOBS, "late": measurement(0.5)}


KEY: dict[str, Any] = {
    "model_sha256": "m",
    "image_sha256": "i",
    "plan": "p",
    "protocol": {"version": 1, "cfa": {"tile": ["RG", "GB"]}},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"model_sha256": "n"},
        {"image_sha256": "j"},
        {"plan": "q"},
        {"protocol": {**KEY["protocol"], "version": 2}},
        {"protocol": {"version": 1, "cfa": {"tile": ["GR", "BG"]}}},
        {"model_sha256": "mi", "image_sha256": ""},
    ],
)
def test_a_job_has_the_name_of_everything_that_it_depends_on(changes: dict[str, Any]) -> None:
    assert job_key(**KEY) != job_key(**{**KEY, **changes})
    turned = dict(reversed(KEY["protocol"].items()))
    assert job_key(**KEY) == job_key(**{**KEY, "protocol": turned})
    assert len(job_key(**KEY)) == 64


def test_lines_are_plain_json(folder: Path) -> None:
    lines = (folder / "jobs.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"study": STUDY}
    assert [json.loads(line)["job"] for line in lines[1:]] == list(JOBS)
