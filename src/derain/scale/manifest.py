"""The outcome of every picture of a large job, one JSON line each, written while the job runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from derain.records import append_records, read_records
from derain.restore.jobs import Job, Outcome, as_row

NAME = "manifest.jsonl"
Stamp = tuple[int, int]  # of a file: its size and the time of its last change, in nanoseconds


class Manifest:
    """The lines of a manifest; the last one about a picture counts."""

    def __init__(self, path: Path) -> None:
        """Reads the file if there is one; lines that a crash cut off are ignored.

        Raises:
            DerainError: the file exists but cannot be read.
        """
        self.path = path
        self._restored: dict[str, Stamp] = {}
        for entry in read_records(path):
            try:
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
        """Appends the outcomes of pictures; they are on disk when it returns.

        Raises:
            DerainError: the file cannot be written.
        """
        rows = (
            {**as_row(outcome, outcome.note), "stamp": _stamp(outcome.job.source)} for outcome in outcomes
        )
        append_records(self.path, rows)


def _stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError:
        return (-1, -1)
    return (state.st_size, state.st_mtime_ns)
