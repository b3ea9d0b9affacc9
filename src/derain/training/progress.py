"""The bar of a training run: steps, time left, loss, last validation."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console
from torch import Tensor


class Progress:
    """On standard error, if it is a terminal and `show` is set; otherwise silent."""

    def __init__(self, steps: int, done: int, show: bool) -> None:
        console = Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=False),
            rich.progress.TextColumn("{task.fields[loss]}  {task.fields[note]}"),
            console=console,
            disable=not (show and console.is_terminal),
        )
        self._task = self._bar.add_task("train", total=steps, completed=done, loss="", note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """One update is done."""
        if self._bar.disable:
            return
        loss = sum(float(value) for value in terms.values())
        self._bar.update(self._task, completed=step, loss=f"loss {loss:.4f}")

    def note(self, text: str) -> None:
        """What the last validation gave."""
        self._bar.update(self._task, note=text)
