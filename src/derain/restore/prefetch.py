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


# Set once what the thread makes is no longer wanted. A thread begins with no value.
_stop_of_this_thread: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


def prefetch(items: Iterator[Item], depth: int = 1) -> Generator[Item]:
    """The items, made in their own thread, at most `depth` of them ahead.

    Errors of the thread are raised here. When this iterator is closed, so are `items`, in their thread. Where
    `items` themselves take from such an iterator, that one ends as well, so that no stage goes on for long.
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
    """What a function makes of the items, in their order; of so many at once, each in its own thread.

    The items are made in another thread, at most that many ahead. An error of theirs is raised after what
    came before it. When this iterator is closed, so are `items`, and what is not at work is left.
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
    """What is finished next; the end, if whoever takes it is to stop."""
    if outer is None:
        return finished.get()
    while not outer.is_set():
        try:
            return finished.get(timeout=0.05)
        except queue.Empty:
            continue
    return StopIteration()
