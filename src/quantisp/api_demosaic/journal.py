"""What was made before, beside it: one line of JSON for each output."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantisp.api_demosaic.settings import DemosaicedFile
from quantisp.files import cannot_write

__all__ = ["JOURNAL_NAME", "Journal"]

JOURNAL_NAME = "demosaic.jsonl"


class Journal:
    """The outputs of a folder, by the digest of all that they depend on.

    Args:
        folder: of the outputs; it need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL_NAME
        self._lines: dict[str, dict[str, Any]] = {}
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        for line in text.splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
                # The last line about an output holds.
                self._lines[str(entry["output"])] = entry
            # A line that was cut off by a kill, or is not ours: its output is made again.
            except (ValueError, TypeError, KeyError):
                continue

    def find(self, key: str, source: Path, path: Path) -> DemosaicedFile | None:
        """What was made at ``path`` with this key and is still there; None otherwise."""
        entry = self._lines.get(path.name)
        try:
            if entry is None or entry["key"] != key or path.stat().st_size != entry["bytes"]:
                return None
            red, green, blue = (float(value) for value in entry["neutral"])
            psnr = entry["psnr_to_float_db"]
            return DemosaicedFile(
                source=source,
                path=path,
                kept=True,
                model=str(entry["model"]),
                pixels=int(entry["pixels"]),
                seconds=0.0,
                white_balance=str(entry["white_balance"]),
                neutral=(red, green, blue),
                psnr_to_float_db=None if psnr is None else float(psnr),
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def begin(self, path: Path) -> None:
        """Forget what is known of an output before it is replaced, for a kill may come between.

        Raises:
            OutputError: the folder cannot be written to.
        """
        self._append({"output": path.name, "key": ""})

    def add(self, key: str, made: DemosaicedFile) -> None:
        """Remember an output.

        Raises:
            OutputError: the folder cannot be written to.
        """
        entry = {
            **asdict(made),
            "source": made.source.name,
            "output": made.path.name,
            "bytes": made.path.stat().st_size,
            "key": key,
        }
        del entry["path"], entry["kept"]
        self._append(entry)

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=True) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # After a kill the last line may lack its end.
                file.write(line if self._ends_whole() else f"\n{line}")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
