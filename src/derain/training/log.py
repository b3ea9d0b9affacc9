"""The log of a run: one line of JSON for each event, two CSV tables with the same content, and trackers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from derain.atomic import replace_file
from derain.errors import DerainError, reason
from derain.records import append_records, read_records
from derain.training.tracking import Tracker


class RunLog:
    """Appends to the run's log files; events after `step`, left by an interrupted run, are dropped."""

    def __init__(self, run: Path, step: int, trackers: Sequence[Tracker] = ()) -> None:
        self._run, self._trackers = run, trackers
        kept = [event for event in read_log(run) if event["step"] <= step]
        replace_file(run / "log.jsonl", "".join(json.dumps(event) + "\n" for event in kept).encode())
        for kind in ("training", "validation"):
            rows = [event for event in kept if event["kind"] == kind]
            replace_file(run / f"{kind}.csv", "".join(map(_csv_line, [*_header(rows), *rows])).encode())

    def write(self, kind: str, step: int, **values: float) -> None:
        """Writes an event, "training" or "validation", with its figures."""
        event = {"kind": kind, "step": step, **values}
        table = self._run / f"{kind}.csv"
        try:
            header = not table.stat().st_size
            with table.open("a", encoding="utf-8") as file:
                file.write("".join(map(_csv_line, [*(_header([event]) if header else []), event])))
        except OSError as error:
            raise DerainError(f"{table}: cannot be written ({reason(error)}).") from error
        append_records(self._run / "log.jsonl", [event])
        for tracker in self._trackers:
            tracker.figures(kind, step, values)

    def picture(self, name: str, step: int, picture: Tensor) -> None:
        """Passes a sample (3, H, W) in [0, 1] to the trackers."""
        for tracker in self._trackers:
            tracker.picture(name, step, picture)

    def close(self) -> None:
        """Makes the trackers write what is still buffered."""
        for tracker in self._trackers:
            tracker.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """The events of a run in order; an incomplete last line is left out."""
    return [event for event in read_records(run / "log.jsonl") if {"kind", "step"} <= event.keys()]


def _header(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: name for name in rows[0]}] if rows else []


def _csv_line(row: dict[str, Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([v for k, v in row.items() if k != "kind"])
    return line.getvalue()
