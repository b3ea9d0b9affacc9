"""Waiting for jobs without polling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import Request

from derain.serve.jobs import ServerJob, Store
from derain.serve.limits import Refused
from derain.serve.views import JobView, view

KEEP_ALIVE = b": still here\n\n"  # a comment, as proxies close idle connections
SILENCE = 15.0  # seconds without an event after which it is sent


async def events(ids: Sequence[str], store: Store) -> AsyncIterator[bytes]:
    """Server-sent events: "job" at once and after each change to a job, "gone" once one is deleted.

    Args:
        ids: the ids of the jobs; the stream ends when all of them have ended.
        store: holds the jobs.
    """
    known: dict[str, JobView | None] = dict.fromkeys(ids)
    with _changes(store) as changed:
        while known:
            changed.clear()
            for job_id, last in list(known.items()):
                try:
                    now = view(store.get(job_id), store)
                except Refused:
                    del known[job_id]
                    yield _event("gone", json.dumps({"id": job_id}))
                    continue
                if now != last:
                    known[job_id] = now
                    yield _event("job", now.model_dump_json())
                if now.state in ("done", "failed"):
                    del known[job_id]
            while known and not await _happens(changed, SILENCE):
                yield KEEP_ALIVE


def _event(name: str, data: str) -> bytes:
    """One event; `data` is a single line."""
    return f"event: {name}\ndata: {data}\n\n".encode()


async def _happens(changed: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await changed.wait()
    except TimeoutError:
        return False


async def end_of(job_id: str, store: Store, request: Request) -> ServerJob:
    """The job once it has ended.

    Args:
        job_id: the id of the job.
        store: holds the job.
        request: the request of the waiting client; waiting stops once it has disconnected.

    Raises:
        Refused: 404 if the job was deleted, 400 if the client has disconnected.
    """
    waiting = asyncio.create_task(_end(job_id, store))
    leaving = asyncio.create_task(_leaves(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        raise Refused(400, "the client has disconnected.")
    finally:
        waiting.cancel()
        leaving.cancel()


async def _end(job_id: str, store: Store) -> ServerJob:
    with _changes(store) as changed:
        while True:
            changed.clear()
            job = store.get(job_id)
            if job.state in ("done", "failed"):
                return job
            await changed.wait()


@contextmanager
def _changes(store: Store) -> Iterator[asyncio.Event]:
    """An event that is set, in this thread's loop, after each change to any job."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    with store.following(lambda: loop.call_soon_threadsafe(changed.set)):
        yield changed


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
