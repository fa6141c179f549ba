"""The job store: one line a job, kept as it finishes, found again by content."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from quantisp.errors import OutputError
from quantisp.evaluation.measure import Measurement
from quantisp.files import cannot_write

__all__ = ["JobStore", "job_key"]

STORE_NAME = "jobs.jsonl"


def job_key(*, model_sha256: str, image_sha256: str, plan: str, protocol: Mapping[str, Any]) -> str:
    """The name of a job: a digest of everything that its outcome depends on."""
    content = json.dumps([model_sha256, image_sha256, plan, dict(protocol)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class JobStore:
    """The jobs of one study that are done, in ``jobs.jsonl`` of its folder.

    The first line says which study it is; every other line is one job, or a note: numbers that
    settings are made from. A line is written whole
    and flushed to disk; what a kill left of the last one is cut off when the store is opened.

    Args:
        folder: of the study; made if need be. It must be empty, or hold the same study.
        study: what the study is, as plain data.

    Raises:
        OutputError: the folder holds another study or something else, is in use, or cannot be
            written to.
    """

    def __init__(self, folder: Path, study: Mapping[str, Any]) -> None:
        self._path = folder / STORE_NAME
        self._jobs: dict[str, Measurement] = {}
        self._notes: dict[str, dict[str, float]] = {}
        header = json.dumps({"study": dict(study)}, sort_keys=True)
        self.check(folder, study)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Nothing is cut off before the lock is ours: it may be another run's.
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise cannot_write(folder, error) from error
        self._file = io.FileIO(handle, "r+")
        try:
            self._lock()
            if self.check(folder, study):
                self._load()
            else:
                self._file.truncate(0)
                self._append(header)
        except BaseException:
            self._file.close()
            raise

    @staticmethod
    def check(folder: Path, study: Mapping[str, Any]) -> bool:
        """Whether ``folder`` already holds this study; False if it may take a new one.

        Raises:
            OutputError: it holds another study, or something else.
        """
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"expected a folder at {folder}, found a file: choose another --out")
        path = folder / STORE_NAME
        found = _header(path)
        if found is None:
            others = [p.name for p in folder.iterdir() if p != path] if folder.exists() else []
            if others:
                raise OutputError(
                    f"expected an empty folder or a study, {folder} holds {min(others)}: "
                    "choose another --out"
                )
            return False
        differing = [name for name in study if found.get(name) != _plain(study[name])]
        if differing:
            raise OutputError(
                f"expected an empty folder or this study, {folder} holds another study (not the "
                f"same {' and '.join(differing)}): choose another --out"
            )
        return True

    def get(self, key: str) -> Measurement | None:
        """The outcome of a job, if it is done."""
        return self._jobs.get(key)

    def put(self, key: str, outcome: Measurement) -> None:
        """Keep the outcome of a job; it survives a kill from here on.

        Raises:
            OutputError: there is no space; the jobs before stay as they are.
        """
        self._append(json.dumps({"job": key, **outcome.to_dict()}, sort_keys=True))
        self._jobs[key] = outcome

    def note(self, key: str) -> dict[str, float] | None:
        """Numbers that were kept under this key."""
        return self._notes.get(key)

    def put_note(self, key: str, content: Mapping[str, float]) -> None:
        """Keep numbers that are no measurement of a picture, such as a layer's sensitivity.

        Raises:
            OutputError: there is no space; what was kept before stays as it is.
        """
        self._append(json.dumps({"note": key, "content": dict(content)}, sort_keys=True))
        self._notes[key] = dict(content)

    def close(self) -> None:
        """Give the folder free."""
        self._file.close()

    def __enter__(self) -> JobStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(
                f"expected a folder that is not in use, another run is writing to "
                f"{self._path.parent}: wait for it, or choose another --out"
            ) from error

    def _load(self) -> None:
        whole = 0
        for number, line in enumerate(self._file.read().splitlines(keepends=True)):
            if not line.endswith(b"\n"):
                break
            if number > 0:
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise OutputError(
                        f"expected a finished job in line {number + 1} of {self._path}, it is "
                        "damaged: remove the folder, or choose another --out"
                    ) from error
            whole += len(line)
        self._file.seek(whole)
        self._file.truncate()

    def _take(self, stored: Mapping[str, Any]) -> None:
        if "note" in stored:
            content = stored["content"].items()
            self._notes[stored["note"]] = {str(name): float(value) for name, value in content}
        else:
            self._jobs[stored["job"]] = Measurement.from_dict(stored)

    def _append(self, line: str) -> None:
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview(line.encode() + b"\n")
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise cannot_write(self._path.parent, error) from error


def _header(path: Path) -> Mapping[str, Any] | None:
    """What the store at ``path`` says it is; None if there is none, or a kill left half a line."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            line = file.readline()
        return dict(json.loads(line)["study"]) if line.endswith(b"\n") else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"expected a study in {path.parent}, {path.name} does not begin like one: "
            "choose another --out"
        ) from error


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
