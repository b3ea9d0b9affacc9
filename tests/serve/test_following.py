"""Followers of jobs: what they are told, and what it takes when they leave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message

from derain.restore import Settings
from derain.serve.api import create_app
from derain.serve.following import KEEP_ALIVE, events
from derain.serve.jobs import ServerJob, Store
from derain.serve.limits import Limits
from derain.serve.models import offered
from derain.serve.uploads import Upload
from derain.serve.worker import WorkerSettings

LIMITS = Limits(waiting=20)


def add(store: Store) -> ServerJob:
    with store.receiving() as folder:
        (folder / "rainy.png").write_bytes(bytes(100))
        return store.add(folder, Upload("picture", "a.png", folder / "rainy.png", (1, 1)), "spanet")


def test_a_follower_hears_of_a_job_of_silence_and_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derain.serve.following.SILENCE", 0.01)
    store = Store(tmp_path, LIMITS)
    job = add(store)

    async def told() -> list[bytes]:
        heard = []
        async for event in events([job.id], store):
            heard.append(event)
            if event == KEEP_ALIVE:
                store.close()
        return heard

    first, *still, last = asyncio.run(told())
    assert first.startswith(b'event: job\ndata: {"id":"')
    assert still == [KEEP_ALIVE]
    assert last == f'event: gone\ndata: {{"id": "{job.id}"}}\n\n'.encode()


async def leave_at_the_first_event(app: FastAPI, ids: Sequence[str]) -> list[Message]:
    """What the server sends to a client of `/api/v1/events` that reads one event and closes the connection
    while the next ones are on their way."""
    sent: list[Message] = []
    left = asyncio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            for _ in range(50):  # time for whatever prepares the next events
                await asyncio.sleep(0)
            left.set()
            await asyncio.Event().wait()  # nobody reads any more

    query = "&".join(f"id={one}" for one in ids).encode()
    scope = {"type": "http", "method": "GET", "path": "/api/v1/events", "query_string": query, "headers": []}
    await app(scope, receive, send)
    return sent


def test_who_leaves_while_events_are_on_their_way_causes_no_error() -> None:
    work = WorkerSettings(offered(["everyday-small"]), Settings(device="cpu"), threads=1, workers=1)
    app = create_app(LIMITS, work)

    async def leave() -> list[Message]:
        async with app.router.lifespan_context(app):
            store: Store = app.state.server.store
            return await leave_at_the_first_event(app, [add(store).id for _ in range(20)])

    head, first = asyncio.run(leave())
    assert head["status"] == 200
    assert first["body"].startswith(b"event: job\n")
