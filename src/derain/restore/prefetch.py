"""Pipelines whose stages run in parallel."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


def mapped(function: Callable[[Item], Made], items: Generator[Item], at_once: int) -> Generator[Made]:
    """What a function makes of the items, in their order; of so many at once, each in its own thread.

    Where several are made at once, each waits for the item after it, but for no more. When this iterator is
    closed, so are `items`. An error of theirs is raised after what came before it.
    """
    at_work, errors = deque[Future[Made]](), list[Exception]()
    with contextlib.closing(items), ThreadPoolExecutor(at_once) as pool:
        for item in until_error(items, errors):
            at_work.append(pool.submit(function, item))
            while at_work and (len(at_work) == at_once or at_work[0].done()):
                yield at_work.popleft().result()
        while at_work:
            yield at_work.popleft().result()
    if errors:
        raise errors[0]


def until_error(items: Iterator[Item], errors: list[Exception]) -> Iterator[Item]:
    """The items up to an error, which is added to `errors`."""
    try:
        yield from items
    except Exception as error:
        errors.append(error)


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
