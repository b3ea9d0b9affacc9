"""A progress bar with count and time left; without a terminal, an occasional line; quiet with `-q`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from derain.cli.messages import in_words, printable
from derain.cli.output import is_quiet
from derain.errors import Remedy

LINES = 60.0  # seconds between lines where there is no terminal


class Bar:
    """A progress bar of whole steps, each of which may have parts."""

    def __init__(self, progress: Progress, title: str, total: int | None) -> None:
        self._progress, self._title = progress, title
        self._said = self._began = time.monotonic()
        self._task = progress.add_task(title, total=total, note="")
        self._whole = self._first = 0

    def part(self, done: int, total: int | None, note: str = "") -> None:
        """Shows that part of the current step is done; `note` describes it."""
        share = min(done / total, 1.0) if total else 0.0
        self._show(self._whole + share, note=printable(note))

    def advance(self) -> None:
        """Shows that the current step is done."""
        self._whole += 1
        self._show(self._whole, note="")

    def reach(self, done: int, total: int | None, note: str = "") -> None:
        """Shows that this many whole steps are done, of a total that may be known only now."""
        self._whole = done
        self._show(done, total=total, note=printable(note))

    def restart(self, done: int, total: int | None) -> None:
        """Starts again after `done` earlier steps, which are left out of the estimate of the time left."""
        self._whole = self._first = done
        self._began = time.monotonic()
        self._progress.reset(self._task, completed=done, total=total)

    def _show(self, done: float, **fields: Any) -> None:
        self._progress.update(self._task, completed=done, **fields)
        now, task = time.monotonic(), self._progress.tasks[self._task]
        if self._progress.console.is_terminal or is_quiet() or now - self._said < LINES:
            return
        self._said = now
        line = f"{self._title}: {int(done)}"
        if task.total:
            line += f" of {int(task.total)}"
            if done > self._first:
                each = (now - self._began) / (done - self._first)
                line += f", about {duration((task.total - done) * each)} left"
            if task.fields["note"]:
                line += f", {task.fields['note']}"
        print(line, file=sys.stderr, flush=True)

    def say(self, text: str, error: bool = False) -> None:
        """Prints a line above the bar, on standard error for errors; with `-q` errors only."""
        if is_quiet() and not error:
            return
        if self._progress.console.is_terminal:
            self._progress.console.print(printable(text), markup=False, highlight=False)
        else:
            print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)

    def complain(self, message: str, remedy: Remedy | None = None) -> None:
        """Prints the error of one file."""
        self.say(f"derain: {in_words(message, remedy)}", error=True)


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Bar]:
    """A bar over `total` steps (None: not known yet) on standard error."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("time left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    disable = is_quiet() or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        yield Bar(progress, title, total)


def duration(seconds: float) -> str:
    """A duration in words: 12.0 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
