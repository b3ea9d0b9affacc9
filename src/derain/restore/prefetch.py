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
    finished: queue.Queue[tuple[Item] | BaseException] = queue.Queue(depth)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    break
                finished.put((item,))
            end: BaseException = StopIteration()
        except BaseException as error:
            end = error
        finally:
            if isinstance(items, Generator):
                items.close()
        finished.put(end)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while True:
            found = finished.get()
            if isinstance(found, StopIteration):
                return
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        stop.set()
        while worker.is_alive():
            try:
                finished.get(timeout=0.05)
            except queue.Empty:
                continue
