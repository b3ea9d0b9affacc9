"""Ctrl-C and SIGTERM: lets the step in progress finish and the state be saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from derain.errors import DerainError

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stopped(DerainError):
    """A run was asked to stop and has saved its state.

    Attributes:
        step: the number of updates done.
        run: the run's folder; training into it again resumes the run.
    """

    def __init__(self, received: int | None, step: int, run: Path) -> None:
        super().__init__(f"stopped after step {step}; the state is saved in {run}. Train into it to resume.")
        self.step, self.run = step, run
        self.exit_code = 128 + (received or signal.SIGTERM)


class Signals:
    """Within this context the first SIGINT or SIGTERM is only noted; a second Ctrl-C interrupts."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
