"""Pipelines whose stages run in parallel."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


# An event that is set once what this thread produces is no longer wanted; a new thread starts with None.
_stop_of_this_thread: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


def prefetch(items: Iterator[Item], depth: int = 1) -> Generator[Item]:
    """The items, produced in their own thread, at most `depth` of them ahead.

    Errors in the thread are raised here. When this iterator is closed, so are `items`, in their thread. Where
    `items` draw on another such iterator, that one ends as well, so that no stage runs on for long.
    """
    finished: queue.Queue[tuple[Item] | BaseException] = queue.Queue(depth)
    stop, outer = threading.Event(), _stop_of_this_thread.get()

    def work() -> None:
        _stop_of_this_thread.set(stop)
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
            found = _next(finished, outer)
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


def mapped(function: Callable[[Item], Made], items: Iterator[Item], at_once: int) -> Generator[Made]:
    """The results of a function for the items, in order, computed for `at_once` of them in parallel threads.

    The items are produced in another thread, at most that many ahead. An error in them is raised after the
    results of the items before it. When this iterator is closed, so are `items`, and calls that have not
    started are cancelled.
    """
    pool = ThreadPoolExecutor(at_once)
    try:
        at_work = prefetch((pool.submit(function, item) for item in items), at_once)
        with contextlib.closing(at_work):
            for made in at_work:
                yield made.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _next(
    finished: queue.Queue[tuple[Item] | BaseException], outer: threading.Event | None
) -> tuple[Item] | BaseException:
    """The next finished item, or the end if the thread that takes it is to stop."""
    if outer is None:
        return finished.get()
    while not outer.is_set():
        try:
            return finished.get(timeout=0.05)
        except queue.Empty:
            continue
    return StopIteration()
