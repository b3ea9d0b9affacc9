"""Pipelines whose stages run in parallel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], depth: int = 1) -> Generator[Item]:
    """The items, made in their own thread, at most `depth` of them ahead.

    Errors of the thread are raised here. When this iterator is closed, so are `items`, in their thread.
    """
    finished: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    break
                finished.put((item, None))
            error = None
        except BaseException as raised:
            error = raised
        finally:
            if isinstance(items, Generator):
                items.close()
        finished.put((None, error or StopIteration()))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while True:
            item, error = finished.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # there is an item where there is no error
    finally:
        stop.set()
        while worker.is_alive():
            try:
                finished.get(timeout=0.05)
            except queue.Empty:
                continue
