"""What became of every picture of a large job, one JSON line each, kept while the job runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from derain.errors import DerainError
from derain.restore.jobs import Job, Outcome, as_row

NAME = "manifest.jsonl"
Stamp = tuple[int, int]  # of a file: its size and the time of its last change, in nanoseconds


class Manifest:
    """The lines of a manifest; the last one about a picture counts."""

    def __init__(self, path: Path) -> None:
        """Reads what there is; lines that a crash cut off are ignored.

        Raises:
            DerainError: the file exists but cannot be read.
        """
        self.path = path
        self._restored: dict[str, Stamp] = {}
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise DerainError(f"{path}: cannot be read ({error.strerror or error}).") from None
        for line in lines:
            try:
                entry = json.loads(line)
                size, time = entry["stamp"]
                key, status = str(entry["target"]), entry["status"]
            except (ValueError, KeyError, TypeError):
                continue
            self._restored.pop(key, None)
            if status == "restored":
                self._restored[key] = (size, time)

    def is_outdated(self, job: Job) -> bool:
        """Whether the result was made here, from a source that has changed since."""
        made_from = self._restored.get(str(job.target))
        return made_from is not None and made_from != _stamp(job.source)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Appends what became of pictures; on disk when it returns.

        Raises:
            DerainError: the file cannot be written.
        """
        rows = ({**as_row(outcome), "stamp": _stamp(outcome.job.source)} for outcome in outcomes)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and not self._ends_a_line():
                    file.write(b"\n")
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DerainError(f"{self.path}: cannot be written ({error.strerror or error}).") from error

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError:
        return (-1, -1)
    return (state.st_size, state.st_mtime_ns)
