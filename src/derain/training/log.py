"""What a run says of itself: one line of JSON per event, the same as two CSV tables, and events for
TensorBoard where that was asked for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from derain.atomic import replace_file
from derain.errors import DerainError
from derain.extras import extra


class RunLog:
    """Appends to the run's log files; events after `step`, left by a run that was cut off, are dropped."""

    def __init__(self, run: Path, step: int, tensorboard: bool = False) -> None:
        self._run = run
        kept = [event for event in read_log(run) if event["step"] <= step]
        replace_file(run / "log.jsonl", "".join(json.dumps(event) + "\n" for event in kept).encode())
        for kind in ("training", "validation"):
            rows = [event for event in kept if event["kind"] == kind]
            replace_file(run / f"{kind}.csv", "".join(map(_csv_line, [*_header(rows), *rows])).encode())
        self._board = _tensorboard(run, step) if tensorboard else None

    def write(self, kind: str, step: int, **values: float) -> None:
        """One event: "training" or "validation" with its figures."""
        event = {"kind": kind, "step": step, **values}
        table = self._run / f"{kind}.csv"
        header = not table.stat().st_size
        try:
            with table.open("a", encoding="utf-8") as file:
                file.write("".join(map(_csv_line, [*(_header([event]) if header else []), event])))
            with (self._run / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        except OSError as error:
            raise DerainError(
                f"{self._run}: the log cannot be written ({error.strerror or error})."
            ) from None
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, step: int, picture: Tensor) -> None:
        """A sample (3, H, W) in [0, 1] for TensorBoard; nothing without it."""
        if self._board:
            self._board.add_image(name, picture.clamp(0, 1), step)

    def close(self) -> None:
        """Writes what is still buffered."""
        if self._board:
            self._board.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """The events of a run in order; a last line that was cut off is left out."""
    file = run / "log.jsonl"
    if not file.exists():
        return []
    events = []
    for line in file.read_text("utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def _header(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: name for name in rows[0]}] if rows else []


def _csv_line(row: dict[str, Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([v for k, v in row.items() if k != "kind"])
    return line.getvalue()


def _tensorboard(run: Path, step: int) -> Any:
    extra("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(run / "tensorboard", purge_step=step + 1)
